// What the files beside a tokenizer.json add.

#include <gtest/gtest.h>

#include <fstream>
#include <string>
#include <vector>

#include "mha2mla/error.hpp"
#include "support/temporary.hpp"
#include "support/tokenizer_json.hpp"

namespace mha2mla::test {
namespace {

using Ids = std::vector<TokenId>;

class TokenizerCompanions : public testing::Test {
protected:
    void write(const std::string& name, const json& value) const { std::ofstream(directory_ / name) << value; }
    [[nodiscard]] Tokenizer load(json file) const {
        write("tokenizer.json", file);
        return Tokenizer::load(directory_ / "tokenizer.json");
    }
    void expect_refused(const std::vector<std::string_view>& parts) const {
        expect_error(ErrorCode::format, parts, [&] { return load(kFile); });
    }

    const json kFile = {{"model", bpe_model({"a", "<s>", "</s>"})}, {"added_tokens", {added(1, "<s>")}}};
    TemporaryDirectory directory_;
};

TEST_F(TokenizerCompanions, TokensOfTheConfigAreKnown) {
    write("tokenizer_config.json", {{"added_tokens_decoder",
                                     {{"1", added(9, "<s>", {{"lstrip", true}})},  // tokenizer.json has it, and counts
                                      {"2", {{"content", "</s>"}, {"special", true}, {"rstrip", true}}},
                                      {"7", {{"content", "<x>"}, {"special", false}, {"normalized", false}}},
                                      {"0", {{"content", "<taken>"}}}}}});
    write("added_tokens.json", {{"<y>", 8}});  // the config's list counts
    const auto tokenizer = load(kFile);
    EXPECT_EQ(tokenizer.encode("a<s>a</s> <x>", false), (Ids{0, 1, 0, 2, 7}));
    EXPECT_EQ(tokenizer.vocab_size(), 8u);
    EXPECT_FALSE(tokenizer.token_to_id("<y>"));
    EXPECT_FALSE(tokenizer.token_to_id("<taken>"));
    EXPECT_EQ(tokenizer.decode(Ids{0, 2, 7}, true), "a <x>");
}

TEST_F(TokenizerCompanions, TokensOfTheListAreKnown) {
    write("tokenizer_config.json", {{"pad_token", {{"content", "<pad>"}}}});
    write("added_tokens.json", {{"<pad>", 3}, {"<x>", 4}, {"<s>", 77}});
    const auto tokenizer = load(kFile);
    EXPECT_EQ(tokenizer.encode("a<pad><x><s>", false), (Ids{0, 3, 4, 1}));
    EXPECT_EQ(tokenizer.decode(Ids{0, 3, 4}, true), "a <x>");
}

TEST_F(TokenizerCompanions, BosIsAddedWhereTheTemplateHasNone) {
    const json byte_level = {{"type", "ByteLevel"}};
    const json end = {{"type", "TemplateProcessing"},
                      {"single", {{{"Sequence", {{"id", "A"}}}}, {{"SpecialToken", {{"id", "</s>"}}}}}},
                      {"special_tokens", {{"</s>", {{"ids", {2}}}}}}};
    const json begin = {{"type", "TemplateProcessing"},
                        {"single", {{{"SpecialToken", {{"id", "</s>"}}}}, {{"Sequence", {{"id", "A"}}}}}},
                        {"special_tokens", {{"</s>", {{"ids", {2}}}}}}};
    for (const json& bos : {json("<s>"), json{{"content", "<s>"}, {"__type", "AddedToken"}}}) {
        write("tokenizer_config.json", {{"add_bos_token", true}, {"bos_token", bos}});
        for (const auto& [processor, ids] :
             {std::pair{json(), Ids{1, 0}}, {byte_level, Ids{1, 0}}, {end, Ids{1, 0, 2}}, {begin, Ids{2, 0}}}) {
            json file = kFile;
            file["post_processor"] = processor;
            const auto tokenizer = load(file);
            EXPECT_EQ(tokenizer.encode("a", true), ids) << processor;
            EXPECT_EQ(tokenizer.encode("a", false), (Ids{0}));
        }
    }
    for (const json& config : {json{{"add_bos_token", false}, {"bos_token", "<s>"}}, json{{"bos_token", "<s>"}},
                               json{{"add_bos_token", true}}, json{{"add_bos_token", true}, {"bos_token", nullptr}}}) {
        write("tokenizer_config.json", config);
        EXPECT_EQ(load(kFile).encode("a", true), (Ids{0})) << config;
    }
}

TEST_F(TokenizerCompanions, WhatIsWrongIsNamed) {
    write("tokenizer_config.json", {{"add_bos_token", true}, {"bos_token", "<b>"}});
    expect_refused({"tokenizer_config.json", "bos_token '<b>'"});
    write("tokenizer_config.json", {{"added_tokens_decoder", {{"x", {{"content", "b"}}}}}});
    expect_refused({"tokenizer_config.json: added_tokens_decoder.x", "from 0 to"});
    write("tokenizer_config.json", {{"added_tokens_decoder", {{"9999999", {{"content", "b"}}}}}});
    expect_refused({"tokenizer_config.json: added_tokens_decoder.9999999", "from 0 to"});
    write("tokenizer_config.json", {{"added_tokens_decoder", {{"3", "b"}}}});
    expect_refused({"tokenizer_config.json: added_tokens_decoder.3", "must be an object"});
    write("tokenizer_config.json", json::array());
    expect_refused({"tokenizer_config.json", "must be an object"});
    write("tokenizer_config.json", json::object());
    write("added_tokens.json", {{"b", -1}});
    expect_refused({"added_tokens.json", "'b'", "from 0 to"});
}

}  // namespace
}  // namespace mha2mla::test
