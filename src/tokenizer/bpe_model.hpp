#pragma once
/// The `model` of tokenizer.json: a vocabulary and the merges that build its tokens.

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "json_node.hpp"
#include "pair_map.hpp"
#include "tokenizer_file.hpp"
#include "vocabulary.hpp"

namespace mha2mla {

struct Merge {
    TokenId left, right, result;
};

/// Which token a single character is, for all characters that are tokens.
class CharacterIds {
public:
    explicit CharacterIds(const Vocabulary& vocabulary);
    /// -1 if the character is no token.
    [[nodiscard]] TokenId find(char32_t c) const {
        if (c < direct_.size()) return direct_[c];
        const auto found = others_.find(c);
        return found == others_.end() ? -1 : found->second;
    }

private:
    std::array<TokenId, 0x3000> direct_;  // up to the punctuation U+2581, which Llama-2 puts before each word
    std::unordered_map<char32_t, TokenId> others_;
};

struct BpeModel {
    /// @throws Error{unsupported} for another type than BPE or a dropout, Error{format} for a merge of unknown tokens.
    /// `node` is the model in `file`, whose tables are moved from.
    BpeModel(const JsonNode& node, TokenizerFile& file);

    Vocabulary vocabulary;
    CharacterIds characters;
    std::vector<Merge> merges;  // by rank: the first applicable one is made first
    PairMap ranks;              // [left, right] -> index into `merges`

    /// Pairs of neighbours in the input that some merge can join across. Everywhere else a word can be cut without
    /// changing the result, which is what makes a whole book without pre-tokenizer as fast as its words. Unused with
    /// affixes, which make the first and last character of a word special.
    PairMap seams;

    std::optional<std::string> unknown_name;
    std::optional<TokenId> unknown;
    bool fuse_unknown = false;
    bool ignore_merges = false;  // a word that is a token needs no merges
    bool byte_fallback = false;
    std::array<TokenId, 256> byte_ids;  // -1: missing
    std::string prefix;                 // of every character of a word but the first
    std::string suffix;                 // of the last character of a word

    [[nodiscard]] bool has_affixes() const { return !prefix.empty() || !suffix.empty(); }

private:
    void add_merge(std::string_view left, std::string_view right, const JsonNode& node);
    void add_seams(std::string_view left, std::string_view right);
};

}  // namespace mha2mla
