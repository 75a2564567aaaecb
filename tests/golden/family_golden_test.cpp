// Logits of small random checkpoints of many families, as transformers computes them.
#include "mha2mla/evaluate.hpp"
#include "mha2mla/runtime.hpp"
#include "mha2mla/session.hpp"
#include "mha2mla/token_file.hpp"
#include "mha2mla/windows.hpp"
#include "support/shared.hpp"

namespace mha2mla::test {
namespace {

/// What transformers computed for `length` tokens of each row of ids; logits are recorded at every fourth position.
class FamilyGolden : public testing::TestWithParam<const char*> {
protected:
    void SetUp() override {
        const std::string folder = std::string("golden/") + GetParam();
        MHA2MLA_NEEDS_SHARED(folder);
        directory_ = shared(folder);
        expected_ = read_json(directory_ / "expected.json");
        file_.emplace(directory_ / "expected.safetensors");
        model_.emplace(Model::open(directory_));
    }

    [[nodiscard]] std::vector<TokenId> ids(std::size_t row, std::size_t length) const {
        auto all = expected_.at("ids").at(row).get<std::vector<TokenId>>();
        all.resize(length);
        return all;
    }
    [[nodiscard]] std::size_t rows() const { return expected_.at("ids").size(); }
    [[nodiscard]] std::size_t length() const { return expected_.at("ids").at(0).size(); }

    /// @param hidden of the first `length` tokens of each row.
    void expect_logits(const std::string& tensor, const Matrix& hidden) const {
        const auto expected = read_floats(*file_, tensor);
        const Matrix result = logits(*model_, hidden);
        const auto vocab = static_cast<std::size_t>(model_->config.vocab_size);
        ASSERT_EQ(expected.size() * 4, static_cast<std::size_t>(result.size()));
        double largest = 0;
        for (std::size_t row = 0; row < expected.size() / vocab; ++row) {
            for (std::size_t i = 0; i < vocab; ++i) {
                const float ours = result(static_cast<Eigen::Index>(4 * row), static_cast<Eigen::Index>(i));
                largest = std::max(largest, static_cast<double>(std::abs(ours - expected[row * vocab + i])));
            }
        }
        EXPECT_LT(largest, 5e-4) << tensor;
    }

    [[nodiscard]] Matrix by_prefill(std::size_t length) {
        std::vector<TokenId> all;
        for (std::size_t row = 0; row < rows(); ++row) {
            const auto part = ids(row, length);
            all.insert(all.end(), part.begin(), part.end());
        }
        return prefill(*model_, all, static_cast<std::int64_t>(length), observer_);
    }

    /// @param step tokens that go through the layers together.
    [[nodiscard]] Matrix by_decoding(std::size_t length, std::size_t step) const {
        Matrix hidden(static_cast<Eigen::Index>(rows() * length), model_->config.hidden_size);
        Session session(*model_, {.cache = {},
                                  .sequences = static_cast<std::int64_t>(rows()),
                                  .capacity = static_cast<std::int64_t>(length)});
        for (std::size_t row = 0; row < rows(); ++row) {
            const auto tokens = ids(row, length);
            for (std::size_t t = 0; t < length; t += step) {
                const Piece piece{static_cast<std::int64_t>(row), std::span(tokens).subspan(t, step)};
                hidden.middleRows(static_cast<Eigen::Index>(row * length + t), static_cast<Eigen::Index>(step)) =
                    session.advance({&piece, 1});
            }
        }
        return hidden;
    }

    std::filesystem::path directory_;
    nlohmann::json expected_;
    std::optional<SafetensorsFile> file_;
    std::optional<Model> model_;
    Observer observer_;
};

TEST_P(FamilyGolden, PrefillGivesTheLogitsOfTransformers) {
    expect_logits("logits", by_prefill(length()));
    if (file_->find("logits_short") != nullptr) expect_logits("logits_short", by_prefill(length() / 2));
}

TEST_P(FamilyGolden, DecodingGivesTheLogitsOfTransformers) {
    expect_logits("logits", by_decoding(length(), 1));
    expect_logits("logits", by_decoding(length(), 16));
    if (file_->find("logits_short") != nullptr) expect_logits("logits_short", by_decoding(length() / 2, 1));
}

TEST_P(FamilyGolden, NllOfOtherTokens) {
    if (!expected_.contains("nll")) return;  // the older files have logits only
    const auto& nll = expected_.at("nll");
    const auto context = nll.at("context").get<std::int64_t>();
    const auto tokens =
        read_token_file(directory_ / nll.at("tokens").get<std::string>(), TokenFormat::u16, model_->config.vocab_size);
    const auto windows = make_windows(model_->config, tokens, {context, nll.at("windows").get<std::int64_t>()});
    EXPECT_NEAR(evaluate(*model_, windows, context, observer_).nll, nll.at("value").get<double>(), 1e-5);
}

constexpr const char* kOtherFamilies[] = {
    "families5/llama-yarn",
    "families5/llama-yarn-factor",
    "families5/llama-dynamic",
    "families5/llama-longrope",
    "families5/qwen2",
    "families5/qwen2-sliding",
    "families5/qwen3",
    "families5/qwen3-bias-yarn",
    "families5/mistral",
    "families5/ministral",
    "families5/phi3-longrope",
    "families5/phi3-partial",
    "families5/gemma",
    "families5/gemma2",
    "families5/gemma3",
    "families5/olmo2",
    "families5/olmo3",
    "families5/smollm3",
    "families5/granite",
    "families5/cohere",
    "families5/cohere2",
    "families5/stablelm",
    "families5/glm",
    "families5/glm4",
    "families5/starcoder2",
    "families5/arcee",
    "families5/nemotron",
    "families5/helium",
    "families5/seed-oss",
    "families5/exaone4",
    "families/mixtral",
    "families5/qwen3-moe",
    "families5/qwen3-moe-raw",
    "families5/deepseek-v2-dense",
    "families5/deepseek-v2-lite",
    "families5/deepseek-v3-dense",
    "families5/deepseek-v3-moe",
};

INSTANTIATE_TEST_SUITE_P(Families, FamilyGolden, testing::ValuesIn(kFamilies), family_test_name);
INSTANTIATE_TEST_SUITE_P(OtherFamilies, FamilyGolden, testing::ValuesIn(kOtherFamilies), family_test_name);

}  // namespace
}  // namespace mha2mla::test
