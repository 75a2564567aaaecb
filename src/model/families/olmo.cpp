// Norms behind attention and MLP, and none before.
#include "families.hpp"
#include "parts.hpp"

namespace mha2mla::family {
namespace {

constexpr NormNames kNormsBehind = {{}, "post_attention_layernorm", {}, "post_feedforward_layernorm"};

}  // namespace

void olmo2(const ConfigKeys& keys, ModelConfig& config) {
    start(keys, config, {.eps = 1e-5});
    normed_behind(config, kNormsBehind);
    for_each_layer(config, [](LayerRules& rules) { rules.attention.query_key_norm = QueryKeyNorm::whole; });
}

void olmo3(const ConfigKeys& keys, ModelConfig& config) {
    olmo2(keys, config);
    const auto sliding = sliding_layers(keys, config, [](std::int64_t layer) { return (layer + 1) % 4 != 0; });
    slide(config, sliding, window_of(keys, 4096));
    // In files of transformers 4, rope_scaling is that of the full layers alone.
    RotaryRule local;
    if (keys.find("rope_parameters") != nullptr) {
        local = read_rotary(keys, config, "sliding_attention", {10000.0, std::nullopt});
    } else {
        local.frequencies = rope_frequencies(keys.positive("rope_theta", 10000.0), config.head_dim);
    }
    for (std::size_t layer = 0; layer < sliding.size(); ++layer) {
        if (sliding[layer]) config.rules.layers[layer].rotary = local;
    }
}

void exaone4(const ConfigKeys& keys, ModelConfig& config) {
    start(keys, config, {.eps = 1e-5});
    normed_behind(config, kNormsBehind);
    const std::int64_t window = window_of(keys, 4096);
    const auto sliding = window == 0 ? std::vector<bool>(config.rules.layers.size(), false)
                                     : sliding_layers(keys, config, full_once_in(keys, "sliding_window_pattern", 4));
    slide(config, sliding, window);
    for (std::size_t layer = 0; layer < sliding.size(); ++layer) {
        LayerRules& rules = config.rules.layers[layer];
        rules.attention.query_key_norm = QueryKeyNorm::per_head;
        rules.attention.qkv_bias = rules.attention.o_bias = false;
        if (window > 0 && !sliding[layer]) rules.rotary = {};
    }
}

}  // namespace mha2mla::family
