// Interleaved rotation, and attention and MLP side by side.
#include "families.hpp"
#include "parts.hpp"

namespace mha2mla::family {

void cohere(const ConfigKeys& keys, ModelConfig& config) {
    if (keys.flag("use_qk_norm", false)) keys.refuse("use_qk_norm is not supported for model_type 'cohere'");
    start(keys, config, {.eps_key = "layer_norm_eps", .eps = 1e-5, .norm = NormRule::Kind::layer});
    config.tie_word_embeddings = keys.flag("tie_word_embeddings", true);
    config.rules.logit_scale = static_cast<float>(keys.positive("logit_scale", 0.0625));
    config.names.mlp_norm = {};
    for_each_layer(config, [](LayerRules& rules) {
        rules.parallel = true;
        rules.rotary.interleaved = true;
    });
}

void cohere2(const ConfigKeys& keys, ModelConfig& config) {
    cohere(keys, config);
    const auto sliding = sliding_layers(keys, config, full_once_in(keys, "sliding_window_pattern", 4));
    slide(config, sliding, window_of(keys, 4096));
    for (std::size_t layer = 0; layer < sliding.size(); ++layer) {
        if (!sliding[layer]) config.rules.layers[layer].rotary = {};
    }
}

void glm(const ConfigKeys& keys, ModelConfig& config) {
    start(keys, config, {.eps = 1.5625e-7, .rotary = {10000.0, 0.5}});
    config.names.gate_up = "mlp.gate_up_proj";
    for_each_layer(config, [](LayerRules& rules) {
        rules.attention.o_bias = false;
        rules.rotary.interleaved = true;
    });
}

void glm4(const ConfigKeys& keys, ModelConfig& config) {
    glm(keys, config);
    normed_behind(config,
                  {"input_layernorm", "post_self_attn_layernorm", "post_attention_layernorm", "post_mlp_layernorm"});
}

}  // namespace mha2mla::family
