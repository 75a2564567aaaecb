#pragma once
/// Splitting at delimiters, and the treatment of the delimiters.

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

/// Appends the words into which `matches` splits a text at `offset`; the matched parts are the delimiters. Empty words
/// are omitted.
void append_split(const std::vector<Match>& matches, SplitBehavior behavior, std::size_t offset,
                  std::vector<Words::Range>& out);

/// Splits each word at the delimiters or, if `invert` is set, at everything except them.
void split_words(Words& words, const Regex& delimiter, SplitBehavior behavior, bool invert, Effort& effort);

/// Splits each word at each character that is a delimiter.
void split_words(Words& words, bool (*is_delimiter)(char32_t), SplitBehavior behavior);

}  // namespace mha2mla
