#pragma once
/// The `decoder` of tokenizer.json, which converts token names to text.

#include <functional>
#include <string>
#include <vector>

#include "json_node.hpp"

namespace mha2mla {

/// Rewrites token names in place; their concatenation is the text.
using Decoder = std::function<void(std::vector<std::string>& tokens)>;

/// @throws Error{unsupported} for a type this version does not know.
[[nodiscard]] Decoder parse_decoder(const JsonNode& node);

}  // namespace mha2mla
