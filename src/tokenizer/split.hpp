#pragma once
/// What becomes of the delimiters when a text is split at them.

#include <vector>

#include "json_node.hpp"
#include "pre_tokenizer.hpp"
#include "regex.hpp"

namespace mha2mla {

/// With the delimiter '-' and the text "the-final--countdown":
enum class SplitBehavior {
    removed,               // the final countdown
    isolated,              // the - final - - countdown
    merged_with_previous,  // the- final- - countdown
    merged_with_next,      // the -final - -countdown
    contiguous,            // the - final -- countdown
};

/// @throws Error{unsupported} for another name.
[[nodiscard]] SplitBehavior parse_split_behavior(const JsonNode& node);

/// Appends the words that `matches` (delimiters are the matched ones) make of a text at `offset`. Empty ones are left
/// out.
void append_split(const std::vector<Match>& matches, SplitBehavior behavior, std::size_t offset,
                  std::vector<Words::Range>& out);

/// Splits each word at the delimiters, or where `invert` is set at everything but them.
void split_words(Words& words, const Regex& delimiter, SplitBehavior behavior, bool invert);

}  // namespace mha2mla
