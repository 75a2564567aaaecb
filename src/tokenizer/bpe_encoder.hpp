#pragma once
/// Byte pair encoding of words.

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "bpe_model.hpp"

namespace mha2mla {

/// Encodes the words of one text and caches their ids. Not thread-safe; use one encoder per text.
class BpeEncoder {
public:
    /// `model` must outlive the encoder.
    explicit BpeEncoder(const BpeModel& model) : model_(&model) {}

    /// Appends the ids of a word (valid UTF-8), in O(n log n). Characters that are not in the vocabulary
    /// and that neither byte tokens nor an unknown token can replace are dropped, as in the Rust library.
    /// @throws Error{format} if the unknown token is needed and not in the vocabulary.
    void encode(std::string_view word, std::vector<TokenId>& out);

private:
    /// A token of the current word, in a doubly linked list.
    struct Symbol {
        TokenId id;  // -1: merged into its left neighbour
        std::int32_t previous, next;
    };
    struct Range {
        std::size_t begin, size;
    };

    void read_symbols(std::string_view word);
    void read_symbols_with_affixes(std::string_view word);
    void add_missing(std::string_view character);
    void add_known(TokenId id);
    void flush_unknown();
    void encode_part(std::span<const TokenId> symbols, std::vector<TokenId>& out);
    void merge(std::span<const TokenId> symbols, std::vector<TokenId>& out);
    void push_merge(std::int32_t left, std::int32_t right);

    const BpeModel* model_;
    std::vector<TokenId> input_;  // the current word before any merge
    bool unknown_pending_ = false;
    std::vector<Symbol> symbols_;
    std::vector<std::uint64_t> queue_;  // heap of (rank, position), lowest first

    std::unordered_map<std::string, Range, StringHash, std::equal_to<>> seen_;  // part's ids, as bytes -> results_
    std::vector<TokenId> results_;
};

}  // namespace mha2mla
