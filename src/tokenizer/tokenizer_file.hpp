#pragma once
/// Parses the JSON of a tokenizer.json.

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "json_node.hpp"
#include "vocabulary.hpp"

namespace mha2mla {

/// The contents of a file. The two tables of the model, which are nearly all of it, are not kept as JSON: that would
/// take ten times their memory and most of the time to load.
struct TokenizerFile {
    /// `name` stands for the file in messages.
    /// @throws Error{format} if it is not JSON or nested deeper than 100, if model.vocab has an id that is no integer,
    ///         negative, beyond 2^24, or shared, or model.merges has an entry that is neither "left right" nor
    ///         [left, right]. Tables of other shapes, as other models have them, stay in `rest`.
    TokenizerFile(std::string_view json_text, std::string_view name);

    struct MergeNames {
        std::string left, right;
    };
    nlohmann::json rest;  // all the file, but `true` in place of the tables
    Vocabulary vocabulary;
    std::vector<MergeNames> merges;  // by rank
    bool has_vocabulary = false;     // whether model.vocab is an object
    bool has_merges = false;         // whether model.merges is an array
};

}  // namespace mha2mla
