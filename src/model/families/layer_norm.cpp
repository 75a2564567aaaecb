// LayerNorm with a bias.
#include "families.hpp"
#include "parts.hpp"

namespace mha2mla::family {

void stablelm(const ConfigKeys& keys, ModelConfig& config) {
    if (keys.flag("qk_layernorm", false)) keys.refuse("qk_layernorm is not supported for model_type 'stablelm'");
    start(keys, config,
          {.eps_key = "layer_norm_eps", .eps = 1e-5, .norm = NormRule::Kind::layer, .rotary = {10000.0, 0.25}});
    const bool parallel = keys.flag("use_parallel_residual", false);
    if (parallel) config.names.mlp_norm = {};
    for_each_layer(config, [&](LayerRules& rules) {
        rules.parallel = parallel;
        rules.attention.qkv_bias = keys.flag("use_qkv_bias", false);
        rules.attention.o_bias = false;
    });
}

void starcoder2(const ConfigKeys& keys, ModelConfig& config) {
    start(keys, config,
          {.eps_key = "norm_epsilon", .eps = 1e-5, .norm = NormRule::Kind::layer, .activation = "gelu_pytorch_tanh"});
    config.tie_word_embeddings = keys.flag("tie_word_embeddings", true);
    config.names.up = "mlp.c_fc";
    config.names.down = "mlp.c_proj";
    const bool bias = keys.flag("use_bias", true);
    for_each_layer(config, [&](LayerRules& rules) {
        rules.attention.qkv_bias = rules.attention.o_bias = rules.mlp.bias = bias;
        rules.mlp.gated = false;
    });
    slide(config, all_layers(config), window_of(keys));
}

void nemotron(const ConfigKeys& keys, ModelConfig& config) {
    start(keys, config,
          {.eps_key = "norm_eps",
           .eps = 1e-5,
           .norm = NormRule::Kind::layer,
           .weight_offset = 1,
           .rotary = {10000.0, 0.5},
           .activation = "relu2"});
    for_each_layer(config, [](LayerRules& rules) { rules.mlp.gated = false; });
}

}  // namespace mha2mla::family
