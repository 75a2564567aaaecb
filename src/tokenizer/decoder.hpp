#pragma once
/// The `decoder` of tokenizer.json, which converts token names to text.

#include <functional>
#include <string>
#include <vector>

#include "effort.hpp"
#include "json_node.hpp"

namespace mha2mla {

/// Rewrites token names in place; their concatenation is the text. @throws Error{unsupported} if that takes too much of
/// `effort`.
using Decoder = std::function<void(std::vector<std::string>& tokens, Effort& effort)>;

/// @throws Error{unsupported} for a type this version does not know.
[[nodiscard]] Decoder parse_decoder(const JsonNode& node);

}  // namespace mha2mla
