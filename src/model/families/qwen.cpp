// Qwen.
#include "experts.hpp"
#include "families.hpp"

namespace mha2mla::family {
namespace {

void slide_as_qwen(const ConfigKeys& keys, ModelConfig& config) {
    if (!keys.flag("use_sliding_window", false)) return;
    const std::int64_t first = keys.integer("max_window_layers").value_or(28);
    slide(config, sliding_layers(keys, config, [&](std::int64_t layer) { return layer >= first; }),
          window_of(keys, 4096));
}

/// 0 experts: every layer is dense.
void add_qwen_experts(const ConfigKeys& keys, ModelConfig& config, const ExpertKeys& from,
                      std::int64_t default_shared_width) {
    for_each_layer(config, [](LayerRules& rules) { rules.mlp.bias = false; });
    if (keys.integer("num_experts") == 0) return;
    MixtureRule mixture = read_experts(keys, from);
    mixture.normalised = keys.flag("norm_topk_prob", false);
    if (default_shared_width > 0) {
        mixture.shared_width = keys.dimension("shared_expert_intermediate_size", kMaxMlpWidth, default_shared_width);
        mixture.shared_gate = true;
        config.names.shared_expert = "mlp.shared_expert";
    }
    place_experts(config, mixture, sparse_as_qwen(keys));
}

}  // namespace

void qwen2(const ConfigKeys& keys, ModelConfig& config) {
    start(keys, config);
    for_each_layer(config, [](LayerRules& rules) {
        rules.attention.qkv_bias = true;
        rules.attention.o_bias = false;
    });
    slide_as_qwen(keys, config);
}

void qwen3(const ConfigKeys& keys, ModelConfig& config) {
    start(keys, config);
    for_each_layer(config, [](LayerRules& rules) { rules.attention.query_key_norm = QueryKeyNorm::per_head; });
    slide_as_qwen(keys, config);
}

void qwen2_moe(const ConfigKeys& keys, ModelConfig& config) {
    start(keys, config);
    const bool bias = keys.flag("qkv_bias", true);
    for_each_layer(config, [&](LayerRules& rules) {
        rules.attention.qkv_bias = bias;
        rules.attention.o_bias = false;
    });
    slide_as_qwen(keys, config);  // as in transformers 4: files of transformers 5 have layer_types
    add_qwen_experts(keys, config,
                     {.experts = {"num_experts"}, .default_experts = 60, .default_per_token = 4, .default_width = 1408},
                     5632);
}

void qwen3_moe(const ConfigKeys& keys, ModelConfig& config) {
    start(keys, config);
    for_each_layer(config, [](LayerRules& rules) { rules.attention.query_key_norm = QueryKeyNorm::per_head; });
    if (keys.flag("use_sliding_window", false)) slide(config, all_layers(config), window_of(keys, 4096));
    add_qwen_experts(keys, config,
                     {.experts = {"num_experts", "num_local_experts"},
                      .default_experts = 128,
                      .default_per_token = 8,
                      .default_width = 768},
                     0);
}

}  // namespace mha2mla::family
