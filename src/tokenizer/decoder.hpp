#pragma once
/// The `decoder` of tokenizer.json: from the names of tokens to text.

#include <functional>
#include <string>
#include <vector>

#include "json_node.hpp"

namespace mha2mla {

/// Rewrites the names of tokens; joined, they are the text.
using Decoder = std::function<void(std::vector<std::string>& tokens)>;

/// @throws Error{unsupported} for a type this version does not know.
[[nodiscard]] Decoder parse_decoder(const JsonNode& node);

}  // namespace mha2mla
