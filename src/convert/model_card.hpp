#pragma once
#include <string>

#include "mha2mla/convert.hpp"

namespace mha2mla {

/// README.md of the output, with Hugging Face front matter: what was done, and what it costs and saves.
[[nodiscard]] std::string model_card(const Model& source, const ConvertOptions& options, const ConvertReport& report);

}  // namespace mha2mla
