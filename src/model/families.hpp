#pragma once
#include "config_keys.hpp"
#include "mha2mla/model.hpp"

namespace mha2mla {

/// Fills in `config.rules`, `config.names` and what else a family decides. `config` has its dimensions.
/// @throws Error{unsupported} naming a model_type that is not in the table, or a feature; Error{format}
void apply_family(const ConfigKeys& keys, ModelConfig& config);

/// @throws Error{unsupported} if model_families() has no such model_type.
void check_family(const ConfigKeys& keys, const std::string& model_type);

/// Whether it is kConvertedPrefix and a family that converts.
[[nodiscard]] bool is_converted_family(std::string_view model_type);

}  // namespace mha2mla
