#pragma once
/// The model `BPE`: a vocabulary and the merges that build its tokens.

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

/// The token id of each single character that is a token.
class CharacterIds {
public:
    explicit CharacterIds(const Vocabulary& vocabulary);
    /// The id of a character, or -1 if it is not a token.
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
    /// @throws Error{unsupported} for a dropout, Error{format} for a merge of unknown tokens.
    /// `node` is the model in `file`; the tables of `file` are moved from.
    BpeModel(const JsonNode& node, TokenizerFile& file);

    Vocabulary vocabulary;
    CharacterIds characters;
    std::vector<Merge> merges;  // in the order in which they are applied
    PairMap ranks;              // [left, right] -> index into `merges`

    /// Pairs of adjacent input symbols that some merge can join. Between all others a word can be cut without changing
    /// the result, so a long text without pre-tokenizer is encoded as fast as its words. Not used with affixes, which
    /// treat the first and last character of a word differently.
    PairMap seams;

    std::optional<std::string> unknown_name;
    std::optional<TokenId> unknown;
    bool fuse_unknown = false;
    bool ignore_merges = false;  // a word that is a token is not built by merges
    bool byte_fallback = false;
    std::array<TokenId, 256> byte_ids;  // -1: missing
    std::string prefix;                 // added to every character of a word except the first
    std::string suffix;                 // added to the last character of a word

    [[nodiscard]] bool has_affixes() const { return !prefix.empty() || !suffix.empty(); }

private:
    void add_merge(std::string_view left, std::string_view right, const JsonNode& node);
    void add_seams(std::string_view left, std::string_view right);
};

}  // namespace mha2mla
