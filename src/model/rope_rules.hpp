#pragma once
#include <optional>

#include "config_keys.hpp"
#include "mha2mla/model.hpp"

namespace mha2mla {

/// What a family's own configuration class says where config.json does not.
struct RotaryDefaults {
    double theta = 10000.0;
    std::optional<double> partial_factor = 1.0;  // of head_dim; empty: the family always rotates whole heads
};

/// The rotary embedding of layers of a type: from `rope_parameters` (transformers 5; it may hold one object for each
/// type of layer) or from `rope_theta`, `rope_scaling` and `partial_rotary_factor`. `config` has its dimensions.
/// @param layer_type "full_attention" or "sliding_attention".
/// @throws Error{format} and Error{unsupported} naming the key.
[[nodiscard]] RotaryRule read_rotary(const ConfigKeys& keys, const ModelConfig& config, const std::string& layer_type,
                                     const RotaryDefaults& defaults);

/// By which DeepSeek multiplies 1/√d of its attention: the square of what YaRN calls mscale, for `mscale_all_dim`.
[[nodiscard]] double attention_scale_factor(const ConfigKeys& keys);

}  // namespace mha2mla
