// Ids that the Rust tokenizers library computed. The vocabularies of public models and their ids come from
// tools/fetch_test_tokenizers.py. What is absent is skipped by name.

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <string>
#include <vector>

#include "mha2mla/tokenizer.hpp"
#include "support/shared.hpp"

namespace mha2mla::test {
namespace {

namespace fs = std::filesystem;

std::string read_bytes(const fs::path& file) {
    std::ifstream in(file, std::ios::binary);
    EXPECT_TRUE(in) << file;
    return {std::istreambuf_iterator<char>(in), {}};
}

std::vector<TokenId> read_u16(const fs::path& file) {
    const std::string bytes = read_bytes(file);
    std::vector<TokenId> ids;
    for (std::size_t i = 0; i + 1 < bytes.size(); i += 2) {
        ids.push_back(static_cast<unsigned char>(bytes[i]) | (static_cast<unsigned char>(bytes[i + 1]) << 8));
    }
    return ids;
}

/// Compares without printing half a million ids.
void expect_same_ids(const std::vector<TokenId>& got, const std::vector<TokenId>& want) {
    const auto [g, w] = std::mismatch(got.begin(), got.end(), want.begin(), want.end());
    if (g == got.end() && w == want.end()) return;
    ADD_FAILURE() << "the ids differ at " << g - got.begin() << " of " << got.size() << " (" << want.size()
                  << " expected): got " << (g == got.end() ? -1 : *g) << ", expected " << (w == want.end() ? -1 : *w);
}

struct Case {
    std::string name;    // of the test
    std::string key;     // in the `ids` of vectors.json; empty where ids.json lies beside the tokenizer
    fs::path (*file)();  // tokenizer.json
};

const Case kTinyStories = {"TinyStories", "TinyStories-656K",
                           [] { return shared("models/TinyStories-656K/tokenizer.json"); }};
const Case kKjv = {"Kjv", "kjv byte-level", [] { return example("kjv-1.8M/tokenizer.json"); }};
const Case kSmolLm2 = {"SmolLM2", "", [] { return downloaded("tokenizers/smollm2-135m/tokenizer.json"); }};
const Case kQwen25 = {"Qwen25", "", [] { return downloaded("tokenizers/qwen25-coder-0.5b/tokenizer.json"); }};
const Case kGemma3 = {"Gemma3", "", [] { return downloaded("tokenizers/gemma3-270m/tokenizer.json"); }};

class TokenizerVectors : public testing::TestWithParam<Case> {
protected:
    void SetUp() override {
        const fs::path file = GetParam().file();
        if (!fs::exists(file)) GTEST_SKIP() << file << " is not here; tools/run_tests.sh makes those of public models";
        tokenizer_ = Tokenizer::load(file);
        const auto vectors = read_json(shared("golden/tokenizers/vectors.json"));
        texts_ = vectors.at("texts").get<std::vector<std::string>>();
        ids_ =
            (GetParam().key.empty() ? read_json(file.parent_path() / "ids.json") : vectors.at("ids").at(GetParam().key))
                .get<std::vector<std::vector<TokenId>>>();
        ASSERT_EQ(ids_.size(), texts_.size());
    }

    std::optional<Tokenizer> tokenizer_;
    std::vector<std::string> texts_;
    std::vector<std::vector<TokenId>> ids_;
};

TEST_P(TokenizerVectors, EveryTextHasTheIdsOfTheRustLibrary) {
    for (std::size_t i = 0; i < texts_.size(); ++i) {
        SCOPED_TRACE("text " + std::to_string(i) + ": " + texts_[i].substr(0, 60));
        expect_same_ids(tokenizer_->encode(texts_[i], true), ids_[i]);
    }
}

INSTANTIATE_TEST_SUITE_P(Golden, TokenizerVectors, testing::Values(kTinyStories, kKjv, kSmolLm2, kQwen25, kGemma3),
                         [](const auto& info) { return info.param.name; });

/// Vocabularies that have every character, be it byte by byte.
class CompleteVocabulary : public TokenizerVectors {};

TEST_P(CompleteVocabulary, DecodingGivesTheTextBack) {
    for (const auto& text : texts_) {
        // An added token that is special would rightly be left out, and a BOS token would rightly be shown.
        const bool has_special = text.find("<|endoftext|>") != std::string::npos;
        EXPECT_EQ(tokenizer_->decode(tokenizer_->encode(text, !has_special), !has_special), text);
    }
}

TEST_P(CompleteVocabulary, DecodingABookGivesItBack) {
    const std::string text = read_bytes(example("kjv-eval.txt"));
    EXPECT_TRUE(tokenizer_->decode(tokenizer_->encode(text, true), true) == text);
}

INSTANTIATE_TEST_SUITE_P(Golden, CompleteVocabulary, testing::Values(kKjv, kSmolLm2, kQwen25, kGemma3),
                         [](const auto& info) { return info.param.name; });

/// Small tokenizers of every kind, by tests/data/golden/tokenizers/make_kinds.py.
TEST(TokenizerKinds, HaveTheIdsAndTextsOfTheRustLibrary) {
    const auto file = read_json(shared("golden/tokenizers/kinds.json"));
    const auto texts = file.at("texts").get<std::vector<std::string>>();
    for (auto kind : file.at("kinds")) {
        SCOPED_TRACE(kind.at("name").get<std::string>());
        auto& json = kind.at("tokenizer");
        if (json.at("model").is_null()) json["model"] = file.at("byte_model");
        const Tokenizer tokenizer = Tokenizer::parse(json.dump(), "tokenizer.json");
        for (std::size_t i = 0; i < texts.size(); ++i) {
            SCOPED_TRACE("text " + std::to_string(i) + ": " + texts[i]);
            const auto ids = tokenizer.encode(texts[i], true);
            EXPECT_EQ(ids, kind.at("ids").at(i).get<std::vector<TokenId>>());
            EXPECT_EQ(tokenizer.decode(ids, false), kind.at("decoded").at(i).get<std::string>());
            EXPECT_EQ(tokenizer.decode(ids, true), kind.at("skipped").at(i).get<std::string>());
        }
    }
}

/// A whole text is one call, as everywhere in this project.
class WholeTexts : public testing::Test {
protected:
    static void compare(const fs::path& tokenizer, const fs::path& text, const fs::path& ids,
                        std::size_t bytes = std::string::npos) {
        for (const auto& file : {tokenizer, text, ids}) {
            if (!fs::exists(file)) GTEST_SKIP() << file << " is not here";
        }
        const std::string original = read_bytes(text).substr(0, bytes);
        expect_same_ids(Tokenizer::load(tokenizer).encode(original, false), read_u16(ids));
    }
};

TEST_F(WholeTexts, TinyStoriesEvaluation) {
    compare(shared("models/TinyStories-656K/tokenizer.json"), shared("data/tinystories-eval.txt"),
            shared("golden/TinyStories-656K/eval_tokens.u16"));
}

TEST_F(WholeTexts, TinyStoriesCalibration) {
    compare(shared("models/TinyStories-656K/tokenizer.json"), shared("data/tinystories-calibration.txt"),
            shared("golden/TinyStories-656K/calibration_tokens.u16"), 400'000);  // what the ids were made of
}

TEST_F(WholeTexts, KjvEvaluation) {
    compare(example("kjv-1.8M/tokenizer.json"), example("kjv-eval.txt"), shared("golden/kjv-1.8M/eval_tokens.u16"));
}

TEST_F(WholeTexts, KjvCalibration) {
    compare(example("kjv-1.8M/tokenizer.json"), example("kjv-calibration.txt"),
            shared("golden/kjv-1.8M/calibration_tokens.u16"));
}

TEST_F(WholeTexts, TinyStoriesEvaluationWithSpecialTokens) {
    MHA2MLA_NEEDS_SHARED("golden/TinyStories-656K/eval_tokens.json");
    const auto golden = read_json(shared("golden/TinyStories-656K/eval_tokens.json"));
    const auto want = golden.at("ids").get<std::vector<TokenId>>();
    auto got = Tokenizer::load(shared("models/" + golden.at("tokenizer").get<std::string>()))
                   .encode(read_bytes(shared(golden.at("file").get<std::string>())),
                           golden.at("add_special_tokens").get<bool>());
    EXPECT_EQ(got.size(), golden.at("count").get<std::size_t>());
    ASSERT_GE(got.size(), want.size());
    got.resize(want.size());  // the file may hold the beginning only
    expect_same_ids(got, want);
}

}  // namespace
}  // namespace mha2mla::test
