// Qwen.
#include "families.hpp"
#include "parts.hpp"

namespace mha2mla::family {
namespace {

void slide_as_qwen(const ConfigKeys& keys, ModelConfig& config) {
    if (!keys.flag("use_sliding_window", false)) return;
    const std::int64_t first = keys.integer("max_window_layers").value_or(28);
    slide(config, sliding_layers(keys, config, [&](std::int64_t layer) { return layer >= first; }),
          window_of(keys, 4096));
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

}  // namespace mha2mla::family
