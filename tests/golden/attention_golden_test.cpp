// The selection by attention and the whitened factorisation against a prototype in PyTorch that recorded its figures:
// NLL over 24 windows of 256 tokens of TinyStories-656K, nothing refined.
#include "mha2mla/convert.hpp"
#include "mha2mla/evaluate.hpp"
#include "mha2mla/token_file.hpp"
#include "support/shared.hpp"
#include "support/temporary.hpp"

namespace mha2mla::test {
namespace {

class AttentionGolden : public testing::Test {
protected:
    void SetUp() override {
        MHA2MLA_NEEDS_SHARED("models/TinyStories-656K");
        source_.emplace(Model::open(shared("models/TinyStories-656K")));
        const auto read = [&](const char* name, std::int64_t tokens) {
            return read_token_file(shared("golden/TinyStories-656K") / name, TokenFormat::u16, 2048, tokens);
        };
        windows_ = make_windows(source_->config, read("eval_tokens.u16", 256 * 24), {256, 24});
        stats_ = calibrate(*source_, read("calibration_tokens.u16", 160 * 256), 256, observer_,
                           {.max_memory = 0, .spill_directory = {}, .inputs = CalibrationOptions::Inputs::moments});
        add_attention_ranks(*source_, stats_, observer_);
    }
    double nll(const ConvertOptions& asked, const PairRanks& ranks) {
        ConvertOptions options = asked;
        options.inputs = stats_.inputs.get();
        options.overwrite = true;
        (void)convert(*source_, directory_ / "out", options, &ranks, observer_);
        return evaluate(Model::open(directory_ / "out"), windows_, 256, observer_).nll;
    }
    std::optional<Model> source_;
    std::vector<TokenId> windows_;
    CalibrationStats stats_;
    TemporaryDirectory directory_;
    Observer observer_;
};

ConvertOptions by_attention(std::int64_t rope_dim, std::int64_t kv_rank, Factorization factorization) {
    ConvertOptions options;
    options.rope = {"attention", rope_dim, 0};
    options.kv_rank = kv_rank;
    options.factorization = factorization;
    return options;
}

// The prototype scores all queries of six sequences, this a sample of the queries of eight: a pair may differ.
constexpr double kTolerance = 0.04;

TEST_F(AttentionGolden, ItsPairsKeepTheModelAliveWithoutAnyFactorisation) {
    const PairRanks ranks = attention_ranks(stats_);
    EXPECT_NEAR(nll(by_attention(8, 8, Factorization::none), ranks), 3.365, kTolerance);
    EXPECT_NEAR(nll(by_attention(4, 8, Factorization::none), ranks), 4.079, kTolerance);
}

TEST_F(AttentionGolden, WhitenedFactorsLoseLessThanJointOnes) {
    const PairRanks ranks = attention_ranks(stats_);
    EXPECT_NEAR(nll(by_attention(8, 8, Factorization::joint), ranks), 4.097, kTolerance);
    ConvertOptions whitened = by_attention(8, 8, Factorization::whitened);
    whitened.balance = {KvBalance::How::none, 1};
    EXPECT_NEAR(nll(whitened, ranks), 3.859, kTolerance);
    whitened.balance = {KvBalance::How::factor, 1};
    EXPECT_NEAR(nll(whitened, ranks), 3.815, kTolerance);
    whitened.balance = {};
    EXPECT_LT(nll(whitened, ranks), 3.859 + kTolerance);
}

}  // namespace
}  // namespace mha2mla::test
