#pragma once
/// Parses the JSON of a tokenizer.json.

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "json_node.hpp"
#include "vocabulary.hpp"

namespace mha2mla {

/// The contents of a file. The two tables of the model, which are most of it, are not stored as JSON, because that
/// would take ten times the memory and most of the loading time.
struct TokenizerFile {
    /// @param name the file name in messages.
    /// @throws Error{format} if it is not JSON or nested deeper than 100, if model.vocab has an id that is not an
    /// integer, negative, beyond max_id, or shared, model.merges an entry that is neither "left right" nor [left,
    /// right], or a model.vocab of Unigram one that is not [name, score]. Tables of other forms stay in `rest`.
    TokenizerFile(std::string_view json_text, std::string_view name);

    struct MergeNames {
        std::string left, right;
    };
    nlohmann::json rest;  // the whole file, with `true` in place of the tables
    std::int64_t max_id;  // tables are indexed by id, so that ids must be in proportion to the file
    Vocabulary vocabulary;
    std::vector<double> scores;      // by id, of a Unigram
    std::vector<MergeNames> merges;  // in order of rank
    bool has_vocabulary = false;     // whether model.vocab is an object
    bool has_scores = false;         // whether model.vocab is an array, as in Unigram
    bool has_merges = false;         // whether model.merges is an array
};

/// "; tokenizer.model is there: ...", where a tokenizer.json is missing; empty if it is not.
[[nodiscard]] std::string other_tokenizer(const std::filesystem::path& tokenizer_json);

}  // namespace mha2mla
