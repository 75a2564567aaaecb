#pragma once
/// Parts of a tokenizer.json, with vocabularies that are small enough to check by hand.

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "mha2mla/tokenizer.hpp"
#include "support/expect_error.hpp"

namespace mha2mla::test {

using nlohmann::json;
using Names = std::vector<std::string>;

/// A BPE model with one token per name, ids in order.
inline json bpe_model(const Names& vocab, const json& merges = json::array(), const json& more = json::object()) {
    json out = {{"type", "BPE"}, {"vocab", json::object()}, {"merges", merges}};
    for (std::size_t i = 0; i < vocab.size(); ++i) out["vocab"][vocab[i]] = i;
    out.update(more);
    return out;
}

/// The tokenizer of a model and the other parts of its file.
inline Tokenizer make(const json& model, const json& parts = json::object()) {
    json file = {{"version", "1.0"}, {"model", model}};
    file.update(parts);
    return Tokenizer::parse(file.dump(), "test.json");
}

/// All ASCII characters, and the characters by which pre-tokenizers and normalizers replace them.
inline json ascii_model() {
    Names names;
    for (int c = 0; c < 127; ++c) names.emplace_back(1, static_cast<char>(c));
    for (const char* const name : {"▁", "Ġ", "Ċ", "Ã", "©", "é", "e\u0301"}) names.emplace_back(name);
    return bpe_model(names, json::array(), {{"ignore_merges", true}});
}

inline json split(const json& pattern, const std::string& behavior, bool invert = false) {
    return {{"type", "Split"}, {"pattern", pattern}, {"behavior", behavior}, {"invert", invert}};
}

/// An entry of `added_tokens`.
inline json added(TokenId id, const std::string& content, const json& more = json::object()) {
    json out = {{"id", id}, {"content", content}, {"normalized", false}, {"special", false}};
    out.update(more);
    return out;
}

/// A whole file with every byte as a character and three merges.
inline json byte_level_file() {
    Names names;
    for (int c = 0x21; c < 0x144; ++c) {
        if (c > 0x7E && (c < 0xA1 || c == 0xAD)) continue;
        names.emplace_back(c < 0x80
                               ? std::string(1, static_cast<char>(c))
                               : std::string{static_cast<char>(0xC0 | (c >> 6)), static_cast<char>(0x80 | (c & 63))});
    }
    names.insert(names.end(), {"Ġt", "he", "Ġthe"});
    const json byte_level = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}};
    return {
        {"model", bpe_model(names, {"Ġ t", "h e", "Ġt he"})}, {"pre_tokenizer", byte_level}, {"decoder", byte_level}};
}

inline json file_with(const std::string& key, const json& value) { return {{"model", bpe_model({"a"})}, {key, value}}; }

inline void expect_refused(ErrorCode code, const std::vector<std::string_view>& parts, const json& file) {
    expect_error(code, parts, [&] { return Tokenizer::parse(file.dump(), "test.json"); });
}

}  // namespace mha2mla::test
