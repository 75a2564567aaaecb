// Llama and what differs from it in a few scales or in the names of tensors.
#include "experts.hpp"
#include "families.hpp"

namespace mha2mla::family {

void llama(const ConfigKeys& keys, ModelConfig& config) { start(keys, config); }

void mistral(const ConfigKeys& keys, ModelConfig& config) {
    start(keys, config);
    slide(config, all_layers(config), window_of(keys));
}

void ministral(const ConfigKeys& keys, ModelConfig& config) {
    start(keys, config);
    slide(config, sliding_layers(keys, config, [](std::int64_t) { return true; }), window_of(keys));
}

void mixtral(const ConfigKeys& keys, ModelConfig& config) {
    start(keys, config, {.eps = 1e-5, .rotary = {1000000.0, std::nullopt}});
    for_each_layer(
        config, [](LayerRules& rules) { rules.attention.qkv_bias = rules.attention.o_bias = rules.mlp.bias = false; });
    slide(config, all_layers(config), window_of(keys));
    MixtureRule mixture = read_experts(keys, {.experts = {"num_local_experts", "num_experts"},
                                              .default_experts = 8,
                                              .default_per_token = 2,
                                              .width = "intermediate_size"});
    mixture.normalised = true;
    place_experts(config, mixture, [](std::int64_t) { return true; });
    config.names.router = "block_sparse_moe.gate";
    config.names.experts = "block_sparse_moe.experts";
    config.names.expert_gate = "w1";
    config.names.expert_up = "w3";
    config.names.expert_down = "w2";
}

void smollm3(const ConfigKeys& keys, ModelConfig& config) {
    start(keys, config, {.rotary = {2000000.0, std::nullopt}});
    config.tie_word_embeddings = keys.flag("tie_word_embeddings", true);
    const auto layers = static_cast<std::size_t>(config.num_hidden_layers);
    const std::int64_t interval = keys.dimension("no_rope_layer_interval", 1 << 12, 4);
    const auto* list = keys.find("no_rope_layers");
    if (list != nullptr && (!list->is_array() || list->size() != layers)) {
        keys.fail("no_rope_layers", "must list 0 or 1 for each of " + std::to_string(layers) + " layers");
    }
    for (std::size_t layer = 0; layer < layers; ++layer) {
        const bool rotates =
            list != nullptr ? (*list)[layer] != 0 : (static_cast<std::int64_t>(layer) + 1) % interval != 0;
        if (!rotates) config.rules.layers[layer].rotary = {};
    }
    if (keys.flag("use_sliding_window", false)) {
        slide(config, sliding_layers(keys, config, [](std::int64_t) { return false; }), window_of(keys, 4096));
    }
}

void granite(const ConfigKeys& keys, ModelConfig& config) {
    start(keys, config);
    config.rules.embedding_scale = static_cast<float>(keys.positive("embedding_multiplier", 1));
    config.rules.logit_scale = static_cast<float>(1 / keys.positive("logits_scaling", 1));
    for_each_layer(config, [&](LayerRules& rules) {
        rules.residual_scale = static_cast<float>(keys.positive("residual_multiplier", 1));
        rules.attention.scale = static_cast<float>(keys.positive("attention_multiplier", 1));
    });
}

void phi3(const ConfigKeys& keys, ModelConfig& config) {
    start(keys, config, {.eps = 1e-5, .rotary = {10000.0, 1.0}});
    config.names.qkv = "self_attn.qkv_proj";
    config.names.gate_up = "mlp.gate_up_proj";
    slide(config, all_layers(config), window_of(keys));
}

void arcee(const ConfigKeys& keys, ModelConfig& config) {
    start(keys, config, {.eps = 1e-5, .activation = "relu2"});
    for_each_layer(config, [](LayerRules& rules) { rules.mlp.gated = false; });
}

void helium(const ConfigKeys& keys, ModelConfig& config) {
    start(keys, config, {.eps = 1e-8});
    for_each_layer(config, [](LayerRules& rules) {
        rules.attention.o_bias = false;
        rules.rotary.interleaved = true;
    });
}

void seed_oss(const ConfigKeys& keys, ModelConfig& config) {
    start(keys, config);
    for_each_layer(config, [&](LayerRules& rules) {
        rules.attention.qkv_bias = keys.flag("attention_bias", true);
        rules.attention.o_bias = keys.flag("attention_out_bias", false);
    });
}

}  // namespace mha2mla::family
