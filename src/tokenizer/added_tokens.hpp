#pragma once
/// The `added_tokens` of tokenizer.json: tokens that are matched in the text before all other steps.

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "json_node.hpp"
#include "normalizer.hpp"
#include "vocabulary.hpp"

namespace mha2mla {

struct AddedToken {
    TokenId id = 0;
    std::string content;
    bool single_word = false;  // matches only without an adjacent letter or digit
    bool strips_left = false;  // includes the white space before it
    bool strips_right = false;
    bool normalized = false;  // matched in its normalized form in the normalized text
    bool special = false;     // may be omitted when decoding
};

/// A part of a text: an added token, or, without id, the text between added tokens.
struct Segment {
    std::size_t begin = 0;
    std::size_t end = 0;
    std::optional<TokenId> id;
};

/// Searches a text for several strings; finds the leftmost match, and the longest of those.
class StringSet {
public:
    /// Adds a string, which must not be empty. A string that was added before keeps its first value.
    void add(std::string_view text, std::uint32_t value);

    struct Hit {
        std::size_t begin, end;
        std::uint32_t value;
    };
    /// The first match at or after `from`.
    [[nodiscard]] std::optional<Hit> find(std::string_view text, std::size_t from) const;

private:
    static constexpr std::uint32_t kNone = 0xFFFFFFFF;
    struct Node {
        std::uint32_t value = kNone;
        std::uint32_t first_child = kNone, next_sibling = kNone;
        char byte = 0;
    };
    [[nodiscard]] std::uint32_t child(std::uint32_t node, char byte) const;

    std::vector<Node> nodes_ = std::vector<Node>(1);
    std::array<bool, 256> begins_{};  // first bytes of the strings
};

class AddedTokens {
public:
    /// Reads the file's `added_tokens`, if any.
    /// @throws Error{format} if their ids conflict with each other or with the vocabulary.
    AddedTokens(const JsonNode& root, std::int64_t max_id, const Vocabulary& vocabulary, const Normalizer& normalizer);

    /// Finds the tokens that are matched in the original text.
    [[nodiscard]] std::vector<Segment> split_raw(std::string_view text) const { return split(text, raw_); }
    /// Finds the tokens that are matched in the normalized text.
    [[nodiscard]] std::vector<Segment> split_normalized(std::string_view text) const {
        return split(text, normalized_);
    }

    [[nodiscard]] const Vocabulary& names() const { return names_; }
    [[nodiscard]] bool is_special(std::string_view name) const { return special_.contains(name); }

private:
    void add(AddedToken token, const JsonNode& node, const Vocabulary& vocabulary);
    [[nodiscard]] std::vector<Segment> split(std::string_view text, const StringSet& set) const;

    std::vector<AddedToken> tokens_;
    Vocabulary names_;
    std::unordered_set<std::string, StringHash, std::equal_to<>> special_;
    StringSet raw_, normalized_;  // values are indices into tokens_
};

}  // namespace mha2mla
