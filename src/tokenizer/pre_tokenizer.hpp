#pragma once
/// The `pre_tokenizer` of tokenizer.json, which splits a normalised text into the words that BPE encodes.

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "effort.hpp"
#include "json_node.hpp"

namespace mha2mla {

/// A text and its words, which are in order and do not overlap.
struct Words {
    struct Range {
        std::size_t begin;
        std::size_t end;
    };
    std::string text;  // valid UTF-8
    std::vector<Range> ranges;
    bool begins_input = false;  // whether the text is the start of the input

    [[nodiscard]] std::string_view view(Range r) const {
        return std::string_view(text).substr(r.begin, r.end - r.begin);
    }
};

/// Splits words into smaller ones and may rewrite them. @throws Error{unsupported} if that takes too much of `effort`.
using PreTokenizer = std::function<void(Words& words, Effort& effort)>;

/// @throws Error{unsupported} for a type this version does not know.
[[nodiscard]] PreTokenizer parse_pre_tokenizer(const JsonNode& node);

}  // namespace mha2mla
