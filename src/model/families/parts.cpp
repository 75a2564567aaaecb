#include "parts.hpp"

#include <array>
#include <cmath>

namespace mha2mla::family {
namespace {

Activation activation_of(const ConfigKeys& keys, const char* key, const std::string& fallback) {
    struct Row {
        const char* name;
        Activation activation;
    };
    static constexpr std::array<Row, 6> kRows = {{
        {"silu", Activation::silu},
        {"swish", Activation::silu},
        {"gelu", Activation::gelu},
        {"gelu_pytorch_tanh", Activation::gelu_tanh},
        {"gelu_new", Activation::gelu_tanh},
        {"relu2", Activation::relu_squared},
    }};
    const std::string name = keys.text(key, fallback);
    std::string known;
    for (const Row& row : kRows) {
        if (name == row.name) return row.activation;
        known += (known.empty() ? "" : ", ") + std::string(row.name);
    }
    keys.refuse(std::string(key) + " '" + name + "' is not supported; supported: " + known);
}

}  // namespace

void start(const ConfigKeys& keys, ModelConfig& config, const Start& from) {
    LayerRules rules;
    rules.norm = {from.norm, keys.positive(from.eps_key, from.eps), from.weight_offset};
    rules.attention.scale = 1.0F / std::sqrt(static_cast<float>(config.head_dim));
    rules.attention.qkv_bias = rules.attention.o_bias = keys.flag("attention_bias", false);
    rules.mlp = {activation_of(keys, from.activation_key, from.activation), true, keys.flag("mlp_bias", false)};
    rules.rotary = read_rotary(keys, config, "full_attention", from.rotary);
    config.rules.final_norm = rules.norm;
    config.rules.layers.assign(static_cast<std::size_t>(config.num_hidden_layers), rules);
}

std::int64_t window_of(const ConfigKeys& keys, std::int64_t fallback) {
    if (keys.is_null("sliding_window") || (fallback == 0 && keys.find("sliding_window") == nullptr)) return 0;
    return keys.dimension("sliding_window", kMaxPositions, fallback);
}

std::vector<bool> sliding_layers(const ConfigKeys& keys, const ModelConfig& config, const ByDefault& by_default) {
    std::vector<bool> sliding;
    const auto layers = static_cast<std::size_t>(config.num_hidden_layers);
    const auto* types = keys.find("layer_types");
    if (types == nullptr) {
        for (std::size_t layer = 0; layer < layers; ++layer) {
            sliding.push_back(by_default(static_cast<std::int64_t>(layer)));
        }
        return sliding;
    }
    if (!types->is_array() || types->size() != layers) {
        keys.fail("layer_types", "must list a type for each of " + std::to_string(layers) + " layers");
    }
    for (const auto& type : *types) {
        if (type != "full_attention" && type != "sliding_attention") {
            keys.fail("layer_types", "must hold full_attention and sliding_attention only, not " + type.dump());
        }
        sliding.push_back(type == "sliding_attention");
    }
    return sliding;
}

ByDefault full_once_in(const ConfigKeys& keys, const char* key, std::int64_t fallback) {
    const std::int64_t pattern = keys.find("layer_types") != nullptr ? 1 : keys.dimension(key, 1 << 12, fallback);
    return [pattern](std::int64_t layer) { return (layer + 1) % pattern != 0; };
}

std::vector<bool> all_layers(const ModelConfig& config) { return std::vector<bool>(config.rules.layers.size(), true); }

void slide(ModelConfig& config, const std::vector<bool>& sliding, std::int64_t window) {
    for (std::size_t layer = 0; layer < sliding.size(); ++layer) {
        if (sliding[layer]) config.rules.layers[layer].attention.window = window;
    }
}

void normed_behind(ModelConfig& config, const NormNames& names) {
    config.names.attention_norm = names.attention;
    config.names.attention_post_norm = names.attention_post;
    config.names.mlp_norm = names.mlp;
    config.names.mlp_post_norm = names.mlp_post;
    for_each_layer(config, [&](LayerRules& rules) {
        rules.pre_norm = !names.attention.empty();
        rules.post_norm = true;
    });
}

}  // namespace mha2mla::family
