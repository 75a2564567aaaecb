#pragma once
/// The `model` of tokenizer.json, which encodes the words of a text.

#include <functional>
#include <memory>
#include <string_view>
#include <vector>

#include "json_node.hpp"
#include "tokenizer_file.hpp"
#include "vocabulary.hpp"

namespace mha2mla {

/// Appends the ids of a word (valid UTF-8). @throws Error{format} if a token that stands for what is unknown is needed
/// and missing.
using WordEncoder = std::function<void(std::string_view word, std::vector<TokenId>& ids)>;

struct WordModel {
    std::shared_ptr<const Vocabulary> vocabulary;
    /// Makes an encoder for the words of one text, which may remember them; it is not thread-safe. The model must
    /// outlive it.
    std::function<WordEncoder()> encoder;
};

/// Reads the model at `node` in `file`, whose tables are moved from.
/// @throws Error{unsupported} for a type or an option this version does not know, Error{format} for tables that are
///         missing or contradict each other.
[[nodiscard]] WordModel parse_word_model(const JsonNode& node, TokenizerFile& file);

// The types, in the same way.
[[nodiscard]] WordModel parse_bpe(const JsonNode& node, TokenizerFile& file);
[[nodiscard]] WordModel parse_unigram(const JsonNode& node, TokenizerFile& file);
[[nodiscard]] WordModel parse_word_piece(const JsonNode& node, TokenizerFile& file);
[[nodiscard]] WordModel parse_word_level(const JsonNode& node, TokenizerFile& file);

/// Checks that model.vocab is an object of names and ids.
void check_vocabulary(const JsonNode& node, const TokenizerFile& file);

/// Checks that no name is longer than 4096 bytes, which is how far a model looks from each place of a text.
void check_name_lengths(const JsonNode& node, const Vocabulary& vocabulary);

}  // namespace mha2mla
