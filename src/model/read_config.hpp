#pragma once
#include <nlohmann/json.hpp>
#include <string>

#include "mha2mla/model.hpp"

namespace mha2mla {

/// What a config.json says. @param file its path, for messages and for files that it names. Throws as the other one.
[[nodiscard]] ModelConfig read_config(const nlohmann::ordered_json& json, const std::string& file);

}  // namespace mha2mla
