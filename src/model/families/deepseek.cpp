// Multi-head latent attention from the start.
#include <cmath>

#include "families.hpp"
#include "parts.hpp"

namespace mha2mla::family {
namespace {

/// Multi-head latent attention: the layout room reads its widths. Of a query or key the last qk_rope_head_dim dims
/// rotate.
void deepseek(const ConfigKeys& keys, ModelConfig& config, bool interleaved) {
    const std::int64_t rotated = keys.dimension("qk_rope_head_dim", 512);
    if (rotated % 2 != 0) keys.fail("qk_rope_head_dim", "must be even, not " + std::to_string(rotated));
    config.head_dim = rotated;
    start(keys, config);
    config.head_dim = keys.dimension("v_head_dim", 512);
    config.num_key_value_heads = config.num_attention_heads;
    const std::int64_t dims = rotated + keys.dimension("qk_nope_head_dim", 512);
    for_each_layer(config, [&](LayerRules& rules) {
        rules.attention.scale = 1.0F / std::sqrt(static_cast<float>(dims));
        rules.rotary.interleaved = interleaved;
    });
    if (config.rules.layers.front().rotary.gain != 1) keys.refuse("rope_type yarn is not supported for DeepSeek");
    if (keys.integer("first_k_dense_replace").value_or(0) < config.num_hidden_layers) {
        keys.refuse("layers of experts (first_k_dense_replace) are not supported");
    }
}

}  // namespace

void deepseek_v2(const ConfigKeys& keys, ModelConfig& config) { deepseek(keys, config, true); }

void deepseek_v3(const ConfigKeys& keys, ModelConfig& config) {
    deepseek(keys, config, keys.flag("rope_interleave", true));
}

/// DeepSeek-V3 with frequencies of each layer's own.
void mha2mla_deepseek(const ConfigKeys& keys, ModelConfig& config) {
    deepseek_v3(keys, config);
    const auto* const lists = keys.find("rope_frequencies");
    const std::size_t pairs = config.rules.layers.front().rotary.frequencies.size();
    const std::string wanted = "must list " + std::to_string(pairs) + " positive numbers for each of " +
                               std::to_string(config.num_hidden_layers) + " layers";
    if (lists == nullptr || !lists->is_array() || lists->size() != config.rules.layers.size()) {
        keys.fail("rope_frequencies", wanted);
    }
    for (std::size_t layer = 0; layer < lists->size(); ++layer) {
        const auto& list = (*lists)[layer];
        RotaryRule& rotary = config.rules.layers[layer].rotary;
        if (!list.is_array() || list.size() != pairs) keys.fail("rope_frequencies", wanted);
        for (std::size_t k = 0; k < pairs; ++k) {
            const double frequency = list[k].is_number() ? list[k].get<double>() : 0;
            if (!(frequency > 0 && frequency <= 4)) keys.fail("rope_frequencies", wanted);
            rotary.frequencies[k] = frequency;
        }
        rotary.trained_length = 0;
    }
}

}  // namespace mha2mla::family
