#pragma once
/// The `normalizer` of tokenizer.json, which changes a text before it is split into words.

#include <functional>
#include <string>

#include "effort.hpp"
#include "json_node.hpp"

namespace mha2mla {

/// Changes a valid UTF-8 text in place. @throws Error{unsupported} if that takes too much of `effort`.
using Normalizer = std::function<void(std::string& text, Effort& effort)>;

/// @throws Error{unsupported} for a type this version does not know.
[[nodiscard]] Normalizer parse_normalizer(const JsonNode& node);

}  // namespace mha2mla
