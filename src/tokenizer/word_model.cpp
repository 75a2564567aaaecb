#include "word_model.hpp"

#include <nlohmann/json.hpp>

#include "limits.hpp"

namespace mha2mla {
namespace {

struct ModelRow {
    std::string_view type;
    WordModel (*parse)(const JsonNode& node, TokenizerFile& file);
};
constexpr ModelRow kModels[] = {
    {"BPE", parse_bpe}, {"Unigram", parse_unigram}, {"WordPiece", parse_word_piece}, {"WordLevel", parse_word_level}};

}  // namespace

WordModel parse_word_model(const JsonNode& node, TokenizerFile& file) {
    // The oldest files have no type.
    const auto type = node.find("type");
    const std::string name = type ? type->string() : node.find("merges") ? "BPE" : "";
    std::string known;
    for (const ModelRow& row : kModels) {
        if (row.type == name) return row.parse(node, file);
        known += (known.empty() ? "" : ", ") + std::string(row.type);
    }
    node.fail(ErrorCode::unsupported, (type ? "the model type " + in_quotes(name) : "a model without type and merges") +
                                          " is not supported (supported: " + known +
                                          "); convert the text to ids with the tokenizer's own library and pass ids "
                                          "instead");
}

void check_vocabulary(const JsonNode& node, const TokenizerFile& file) {
    if (const JsonNode vocab = node.at("vocab"); !file.has_vocabulary) {
        vocab.fail(ErrorCode::format, "must be an object of names and ids");
    }
}

void check_name_lengths(const JsonNode& node, const Vocabulary& vocabulary) {
    vocabulary.for_each([&](std::string_view name, TokenId id) {
        if (name.size() <= kMaxTokenBytes) return;
        node.fail(ErrorCode::unsupported, "the token with the id " + std::to_string(id) + " is longer than " +
                                              std::to_string(kMaxTokenBytes) + " bytes, which is not supported");
    });
}

}  // namespace mha2mla
