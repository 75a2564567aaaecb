#pragma once
/// The `added_tokens` of tokenizer.json: tokens that are found in the text before anything else looks at it.

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
    bool single_word = false;  // matches only where no letter or digit touches it
    bool strips_left = false;  // takes the white space before it along
    bool strips_right = false;
    bool normalized = false;  // is looked for in the normalized text, in its own normalized form
    bool special = false;     // can be left out when decoding
};

/// A stretch of a text: an added token or, without id, what is between them.
struct Segment {
    std::size_t begin = 0;
    std::size_t end = 0;
    std::optional<TokenId> id;
};

/// Finds the leftmost and, of those, the longest of several strings.
class StringSet {
public:
    /// Of equal strings the first one counts. `text` must not be empty.
    void add(std::string_view text, std::uint32_t value);

    struct Hit {
        std::size_t begin, end;
        std::uint32_t value;
    };
    /// The first hit at or after `from`.
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
    std::array<bool, 256> begins_{};  // bytes that some string begins with
};

class AddedTokens {
public:
    /// Reads the file's `added_tokens`, if any.
    /// @throws Error{format} if their ids contradict each other or the vocabulary.
    AddedTokens(const JsonNode& root, const Vocabulary& vocabulary, const Normalizer& normalizer);

    /// Finds the tokens that are looked for in the text as it was given.
    [[nodiscard]] std::vector<Segment> split_raw(std::string_view text) const { return split(text, raw_); }
    /// Finds the others in a normalized text.
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
