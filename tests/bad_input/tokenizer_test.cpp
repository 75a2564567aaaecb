// Files that are not a tokenizer.json, and features that the reader does not know.

#include "mha2mla/tokenizer.hpp"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "mha2mla/error.hpp"
#include "support/tokenizer_json.hpp"

namespace mha2mla::test {
namespace {

TEST(BadInput, FilesThatAreNotATokenizer) {
    const auto parse = [](const std::string& text) { return [text] { return Tokenizer::parse(text, "test.json"); }; };
    expect_error(ErrorCode::io, {"no/such/tokenizer.json"}, [] { return Tokenizer::load("no/such/tokenizer.json"); });
    expect_error(ErrorCode::io, {"/"}, [] { return Tokenizer::load("/"); });
    expect_error(ErrorCode::format, {"test.json", "byte 1", "not valid JSON"}, parse(""));
    expect_error(ErrorCode::format, {"test.json", "not valid JSON"}, parse("{\"model\": "));
    expect_error(ErrorCode::format, {"test.json", "not valid JSON"}, parse("{\"model\": \"\xFF\"}"));
    expect_error(ErrorCode::format, {"test.json", "must be an object"}, parse("[]"));
    expect_error(ErrorCode::format, {"test.json", "'model' is missing"}, parse("{}"));
    expect_error(ErrorCode::format, {"test.json", "model", "must be an object"}, parse("{\"model\": 3}"));
    expect_error(ErrorCode::format, {"nested deeper"}, parse(std::string(1'000'000, '[')));
    expect_error(ErrorCode::format, {"must be an object"}, parse(std::string(100, '[') + std::string(100, ']')));
}

TEST(BadInput, ModelsThatAreNotKnownAreNamed) {
    expect_refused(ErrorCode::unsupported, {"test.json: model", "Trigram", "BPE, Unigram, WordPiece, WordLevel"},
                   {{"model", {{"type", "Trigram"}, {"vocab", json::array()}}}});
    expect_refused(ErrorCode::unsupported, {"test.json: model", "without type and merges"},
                   {{"model", {{"vocab", json::object()}}}});
    expect_refused(ErrorCode::unsupported, {"model.dropout"},
                   {{"model", bpe_model({"a"}, json::array(), {{"dropout", 0.1}})}});
    EXPECT_NO_THROW(make(bpe_model({"a"}, json::array(), {{"dropout", 0.0}})));
}

TEST(BadInput, UnigramModels) {
    const auto with = [](const json& vocab, const json& more = json::object()) {
        json model = {{"type", "Unigram"}, {"vocab", vocab}};
        model.update(more);
        return json{{"model", model}};
    };
    const json a = json::array({"a", -1.0});
    for (const json& entry : {json("a"), json::array({"a"}), json::array({-1, "a"}), json::array({"a", -1, 2}),
                              json::array({"a", "b"}), json::array({"a", nullptr}), json(3), json::object()}) {
        expect_refused(ErrorCode::format, {"model.vocab", "entry 1", "[name, score]"}, with(json::array({a, entry})));
    }
    expect_refused(ErrorCode::format, {"model.vocab", "'a' appears twice"}, with(json::array({a, a})));
    expect_refused(ErrorCode::format, {"model.vocab", "[name, score]"}, with(json{{"a", 0}}));
    expect_refused(ErrorCode::format, {"model.unk_id", "from 0 to 0"}, with(json::array({a}), {{"unk_id", 1}}));
    expect_refused(ErrorCode::format, {"model.vocab", "is empty"}, with(json::array(), {{"unk_id", 0}}));
    const json long_name = json::array({std::string(5000, 'a'), 0});
    expect_refused(ErrorCode::unsupported, {"model.vocab", "4096"}, with(json::array({long_name})));
    expect_error(ErrorCode::format, {"unk_id is missing"},
                 [&] { return Tokenizer::parse(with(json::array({a})).dump(), "test.json").encode("ab", false); });
}

TEST(BadInput, WordModels) {
    const json piece = {{"type", "WordPiece"},
                        {"vocab", {{"a", 0}}},
                        {"unk_token", "?"},
                        {"continuing_subword_prefix", "##"},
                        {"max_input_chars_per_word", 10}};
    for (const char* const key : {"vocab", "unk_token", "continuing_subword_prefix", "max_input_chars_per_word"}) {
        json model = piece;
        model.erase(key);
        expect_refused(ErrorCode::format, {"test.json: model", key}, {{"model", model}});
    }
    expect_error(ErrorCode::format, {"'?'", "model.vocab"}, [&] { return make(piece).encode("b", false); });
    const json level = {{"type", "WordLevel"}, {"vocab", {{"a", 0}}}, {"unk_token", "?"}};
    expect_error(ErrorCode::format, {"'b'", "'?'", "model.vocab"}, [&] { return make(level).encode("b", false); });
}

/// Tables are indexed by id, so that a file of 100 bytes must not make one of 100 MB.
TEST(BadInput, IdsAreInProportionToTheFile) {
    expect_refused(ErrorCode::format, {"model.vocab", "'b'", "for a file of its size"},
                   {{"model", {{"type", "BPE"}, {"vocab", {{"a", 0}, {"b", 70'000}}}, {"merges", json::array()}}}});
    expect_refused(ErrorCode::format, {"added_tokens[0].id"},
                   file_with("added_tokens", json::array({added(70'000, "x")})));
    EXPECT_NO_THROW(make(bpe_model({"a"}), {{"added_tokens", json::array({added(65'000, "x")})}}));
}

TEST(BadInput, VocabulariesAndMerges) {
    const auto with = [](const json& vocab, const json& merges) {
        return json{{"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", merges}}}};
    };
    const json none = json::array();
    expect_refused(ErrorCode::format, {"'vocab' is missing"}, {{"model", {{"type", "BPE"}, {"merges", none}}}});
    expect_refused(ErrorCode::format, {"'merges' is missing"}, {{"model", {{"type", "BPE"}, {"vocab", {{"a", 0}}}}}});
    expect_refused(ErrorCode::format, {"model.vocab", "'a'"}, with({{"a", -1}}, none));
    expect_refused(ErrorCode::format, {"model.vocab", "'a'"}, with({{"a", 1 << 30}}, none));
    expect_refused(ErrorCode::format, {"model.vocab", "'a'"}, with({{"a", 1.5}}, none));
    expect_refused(ErrorCode::format, {"model.vocab", "'a'"}, with({{"a", "0"}}, none));
    expect_refused(ErrorCode::format, {"model.vocab", "'a'", "'b'", "id 7"}, with({{"a", 7}, {"b", 7}}, none));
    expect_refused(ErrorCode::format, {"model.merges", "merge 0", "'b'"}, with({{"a", 0}, {"ab", 1}}, {"a b"}));
    expect_refused(ErrorCode::format, {"model.merges", "merge 0", "'ab'"}, with({{"a", 0}, {"b", 1}}, {"a b"}));
    for (const json& merge : {json("ab"), json("a b c"), json::array({"a"}), json(3), json::array({"a", 1})}) {
        expect_refused(ErrorCode::format, {"model.merges", "merge 0"}, with({{"a", 0}}, json::array({merge})));
    }
    expect_refused(ErrorCode::format, {"model.merges", "array"}, with({{"a", 0}}, "a b"));
}

TEST(BadInput, UnknownStepsAreNamed) {
    expect_refused(ErrorCode::unsupported, {"test.json: normalizer", "Reverse"},
                   file_with("normalizer", {{"type", "Reverse"}}));
    expect_refused(
        ErrorCode::unsupported, {"pre_tokenizer.pretokenizers[1]", "UnicodeScripts"},
        file_with("pre_tokenizer",
                  {{"type", "Sequence"}, {"pretokenizers", {{{"type", "Digits"}}, {{"type", "UnicodeScripts"}}}}}));
    expect_refused(ErrorCode::unsupported, {"post_processor", "PairProcessing"},
                   file_with("post_processor", {{"type", "PairProcessing"}}));
    expect_refused(ErrorCode::unsupported, {"decoder", "CTC"}, file_with("decoder", {{"type", "CTC"}}));
    expect_refused(ErrorCode::unsupported, {"pre_tokenizer.behavior", "Sideways"},
                   file_with("pre_tokenizer", {{"type", "Punctuation"}, {"behavior", "Sideways"}}));
    expect_refused(ErrorCode::format, {"post_processor", "'cls'"},
                   file_with("post_processor", {{"type", "BertProcessing"}, {"sep", {"x", 0}}}));
    expect_refused(ErrorCode::format, {"post_processor.sep", "[name, id]"},
                   file_with("post_processor", {{"type", "BertProcessing"}, {"cls", {"x", 0}}, {"sep", {"x"}}}));
    for (const char* const map : {"", "!!!!", "AAAA", "BAAAAA==", "/////w==", "BAAAAAAAAAD/"}) {
        expect_refused(ErrorCode::format, {"normalizer.precompiled_charsmap"},
                       file_with("normalizer", {{"type", "Precompiled"}, {"precompiled_charsmap", map}}));
    }
    expect_refused(ErrorCode::unsupported, {"pre_tokenizer.behavior", "Sideways"},
                   file_with("pre_tokenizer", split({{"String", "a"}}, "Sideways")));
    expect_refused(ErrorCode::unsupported, {"empty pattern"},
                   file_with("pre_tokenizer", split({{"String", ""}}, "Isolated")));
    expect_refused(ErrorCode::format, {"normalizer.prepend", "must be a string"},
                   file_with("normalizer", {{"type", "Prepend"}, {"prepend", 1}}));
    expect_refused(ErrorCode::format, {"normalizer", "'type' is missing"}, file_with("normalizer", json::object()));
    expect_refused(ErrorCode::format, {"decoder.content", "one character"},
                   file_with("decoder", {{"type", "Strip"}, {"content", "ab"}, {"start", 0}, {"stop", 0}}));
    expect_refused(ErrorCode::format, {"post_processor", "'<s>'"},
                   file_with("post_processor", {{"type", "TemplateProcessing"},
                                                {"single", json::array({{{"SpecialToken", {{"id", "<s>"}}}}})},
                                                {"special_tokens", json::object()}}));
    expect_refused(
        ErrorCode::format, {"prepend_scheme", "add_prefix_space"},
        file_with(
            "pre_tokenizer",
            {{"type", "Metaspace"}, {"replacement", "_"}, {"add_prefix_space", false}, {"prepend_scheme", "always"}}));
}

TEST(BadInput, SequencesAreNestedSixteenDeepAtMost) {
    const auto nested = [](int depth) {
        json step = {{"type", "NFC"}};
        for (int i = 0; i < depth; ++i) step = {{"type", "Sequence"}, {"normalizers", json::array({step})}};
        return file_with("normalizer", step);
    };
    EXPECT_NO_THROW(static_cast<void>(Tokenizer::parse(nested(16).dump(), "test.json")));
    expect_refused(ErrorCode::unsupported, {"nested"}, nested(17));
    expect_refused(ErrorCode::unsupported, {"nested"}, nested(40));
}

TEST(BadInput, AddedTokensThatContradict) {
    const auto with = [](const std::vector<json>& tokens) { return file_with("added_tokens", json(tokens)); };
    expect_refused(ErrorCode::format, {"added_tokens[0]", "'a'", "model.vocab"}, with({added(5, "a")}));
    expect_refused(ErrorCode::format, {"added_tokens[0]", "'x'", "'a'"}, with({added(0, "x")}));
    expect_refused(ErrorCode::format, {"added_tokens[1]", "'x'"}, with({added(1, "x"), added(2, "x")}));
    expect_refused(ErrorCode::format, {"added_tokens[1]", "'y'"}, with({added(1, "x"), added(1, "y")}));
    expect_refused(ErrorCode::format, {"added_tokens[0].id"}, with({added(-1, "x")}));
    expect_refused(ErrorCode::format, {"added_tokens[0].id"}, with({{{"id", 1e9}, {"content", "x"}}}));
    expect_refused(ErrorCode::unsupported, {"added_tokens[0]"}, with({added(1, std::string(5000, 'x'))}));
}

TEST(BadInput, TextThatIsNotUtf8SaysWhere) {
    const auto tokenizer = make(ascii_model());
    for (const char* const bad : {"\x80", "\xC3", "\xC0\xAF", "\xED\xA0\x80", "\xF4\x90\x80\x80", "\xE2\x82", "\xFF"}) {
        expect_error(ErrorCode::format, {"UTF-8", "byte offset 2"},
                     [&] { return tokenizer.encode("ab" + std::string(bad) + "c", false); });
    }
}

TEST(BadInput, TruncationsOfAFileNeverCrash) {
    const std::string whole = byte_level_file().dump();
    for (std::size_t size = 0; size < whole.size(); size += 7) {
        EXPECT_THROW(static_cast<void>(Tokenizer::parse(whole.substr(0, size), "test.json")), Error);
    }
}

}  // namespace
}  // namespace mha2mla::test
