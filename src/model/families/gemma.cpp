// Gemma.
#include <cmath>

#include "families.hpp"
#include "parts.hpp"

namespace mha2mla::family {
namespace {

/// Gemma's norms multiply by 1 + weight, and its embeddings are scaled.
void start_gemma(const ConfigKeys& keys, ModelConfig& config, const RotaryDefaults& rotary) {
    const bool newer = keys.find("hidden_activation") != nullptr;
    start(keys, config,
          {.weight_offset = 1,
           .rotary = rotary,
           .activation_key = newer ? "hidden_activation" : "hidden_act",
           .activation = "gelu_pytorch_tanh"});
    config.tie_word_embeddings = keys.flag("tie_word_embeddings", true);
    config.rules.embedding_scale = std::sqrt(static_cast<float>(config.hidden_size));
    if (keys.flag("use_bidirectional_attention", false)) keys.refuse("use_bidirectional_attention is not supported");
}

/// @return 0 for null.
float soft_cap(const ConfigKeys& keys, const char* key, double fallback) {
    return keys.is_null(key)
               ? 0.0F
               : static_cast<float>(fallback > 0 || keys.find(key) != nullptr ? keys.positive(key, fallback) : 0.0);
}

/// What Gemma 2 and 3 share.
void start_later_gemma(const ConfigKeys& keys, ModelConfig& config, double softcap, double final_softcap,
                       const RotaryDefaults& rotary) {
    start_gemma(keys, config, rotary);
    normed_behind(config, {"input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm",
                           "post_feedforward_layernorm"});
    config.rules.final_softcap = soft_cap(keys, "final_logit_softcapping", final_softcap);
    const auto scale = static_cast<float>(1 / std::sqrt(keys.positive("query_pre_attn_scalar", 256)));
    for_each_layer(config, [&](LayerRules& rules) {
        rules.attention.scale = scale;
        rules.attention.softcap = soft_cap(keys, "attn_logit_softcapping", softcap);
    });
}

}  // namespace

void gemma(const ConfigKeys& keys, ModelConfig& config) { start_gemma(keys, config, {10000.0, std::nullopt}); }

void gemma2(const ConfigKeys& keys, ModelConfig& config) {
    start_later_gemma(keys, config, 50, 30, {10000.0, std::nullopt});
    slide(config, sliding_layers(keys, config, [](std::int64_t layer) { return layer % 2 == 0; }),
          window_of(keys, 4096));
}

void gemma3(const ConfigKeys& keys, ModelConfig& config) {
    start_later_gemma(keys, config, 0, 0, {1000000.0, std::nullopt});
    for_each_layer(config, [](LayerRules& rules) {
        rules.attention.query_key_norm = QueryKeyNorm::per_head;
        rules.attention.softcap = 0;  // whatever attn_logit_softcapping says, as in transformers
    });
    const auto sliding = sliding_layers(keys, config, full_once_in(keys, "sliding_window_pattern", 6));
    slide(config, sliding, window_of(keys, 4096));
    RotaryRule local;
    if (keys.find("rope_parameters") != nullptr) {
        local = read_rotary(keys, config, "sliding_attention", {10000.0, std::nullopt});
    } else {
        local.frequencies = rope_frequencies(keys.positive("rope_local_base_freq", 10000.0), config.head_dim);
    }
    for (std::size_t layer = 0; layer < sliding.size(); ++layer) {
        if (sliding[layer]) config.rules.layers[layer].rotary = local;
    }
}

}  // namespace mha2mla::family
