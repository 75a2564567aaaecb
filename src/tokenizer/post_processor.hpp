#pragma once
/// The `post_processor` of tokenizer.json, which adds special tokens around a text.

#include <functional>
#include <vector>

#include "json_node.hpp"
#include "mha2mla/tokenizer.hpp"

namespace mha2mla {

/// Adds the special tokens to the ids of one text.
using PostProcessor = std::function<void(std::vector<TokenId>& ids)>;

/// @throws Error{unsupported} for a type this version does not know.
[[nodiscard]] PostProcessor parse_post_processor(const JsonNode& node);

}  // namespace mha2mla
