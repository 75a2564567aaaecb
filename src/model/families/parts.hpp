#pragma once
/// What the families of src/model/families.cpp are made of.
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "../config_keys.hpp"
#include "../rope_rules.hpp"
#include "mha2mla/model.hpp"

namespace mha2mla::family {

/// The rules that most families share, for every layer; families change what is different.
struct Start {
    const char* eps_key = "rms_norm_eps";
    double eps = 1e-6;
    NormRule::Kind norm = NormRule::Kind::rms;
    float weight_offset = 0;
    RotaryDefaults rotary = {10000.0, std::nullopt};
    const char* activation_key = "hidden_act";
    const char* activation = "silu";
};
void start(const ConfigKeys& keys, ModelConfig& config, const Start& from = {});

template <typename Change>
void for_each_layer(ModelConfig& config, const Change& change) {
    for (LayerRules& rules : config.rules.layers) change(rules);
}

/// `sliding_window`; 0: there is none.
[[nodiscard]] std::int64_t window_of(const ConfigKeys& keys, std::int64_t fallback = 0);

/// Which layers are "sliding_attention": from `layer_types`, or else what `by_default` says of each.
using ByDefault = std::function<bool(std::int64_t layer)>;
[[nodiscard]] std::vector<bool> sliding_layers(const ConfigKeys& keys, const ModelConfig& config,
                                               const ByDefault& by_default);
/// A layer is full if its number, from 1, is a multiple of the pattern under `key`.
[[nodiscard]] ByDefault full_once_in(const ConfigKeys& keys, const char* key, std::int64_t fallback);
[[nodiscard]] std::vector<bool> all_layers(const ModelConfig& config);
void slide(ModelConfig& config, const std::vector<bool>& sliding, std::int64_t window);

/// Names of the norms before and behind the attention, and before and behind the MLP; those before may be absent.
struct NormNames {
    std::string_view attention, attention_post, mlp, mlp_post;
};
void normed_behind(ModelConfig& config, const NormNames& names);

}  // namespace mha2mla::family
