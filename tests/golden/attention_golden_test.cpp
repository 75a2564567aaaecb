// The selection by attention and the factorisations by moments on TinyStories-656K: NLL over 24 windows of 256 tokens,
// nothing refined. What one stage gains is a difference between two measured values; a prototype in PyTorch recorded
// some of the values too.
#include "mha2mla/convert.hpp"
#include "mha2mla/evaluate.hpp"
#include "mha2mla/token_file.hpp"
#include "support/shared.hpp"
#include "support/temporary.hpp"

namespace mha2mla::test {
namespace {

/// The model, its statistics and what was measured, which the tests share.
struct Measurements {
    Measurements() : source(Model::open(shared("models/TinyStories-656K"))) {
        const auto read = [&](const char* name, std::int64_t tokens) {
            return read_token_file(shared("golden/TinyStories-656K") / name, TokenFormat::u16, 2048, tokens);
        };
        windows = make_windows(source.config, read("eval_tokens.u16", 256 * 24), {256, 24});
        stats = calibrate(source, read("calibration_tokens.u16", 160 * 256), 256, observer,
                          {.max_memory = 0, .spill_directory = {}, .inputs = CalibrationOptions::Inputs::moments});
        add_order(find_rope_strategy("attention").order, source, stats, observer);
        ranks = ranks_for(find_rope_strategy("attention"), stats);
    }

    Observer observer;
    TemporaryDirectory directory;
    Model source;
    std::vector<TokenId> windows;
    CalibrationStats stats;
    PairRanks ranks;
};

class AttentionGolden : public testing::Test {
protected:
    void SetUp() override {
        MHA2MLA_NEEDS_SHARED("models/TinyStories-656K");
        if (!shared_) shared_ = std::make_unique<Measurements>();
    }
    static void TearDownTestSuite() { shared_.reset(); }

    [[nodiscard]] static double nll(std::int64_t rope_dim, std::int64_t kv_rank, Factorization factorization,
                                    NopePhase phase = NopePhase::zero, KvBalance balance = {}) {
        Measurements& m = *shared_;
        StagedPlan stages;
        stages.rope = {"attention", rope_dim, 0};
        stages.kv_rank = kv_rank;
        stages.factorization = factorization;
        stages.nope_phase = phase;
        stages.balance = balance;
        (void)convert(m.source, m.directory / "out", {stages}, {&m.ranks, m.stats.inputs.get()}, m.observer,
                      {.overwrite = true});
        return evaluate(Model::open(m.directory / "out"), m.windows, 256, m.observer).nll;
    }

private:
    static std::unique_ptr<Measurements> shared_;
};
std::unique_ptr<Measurements> AttentionGolden::shared_;

// The prototype scores all queries of six sequences, this a sample of the queries of eight: a pair may differ.
constexpr double kTolerance = 0.04;

TEST_F(AttentionGolden, PhasesMakeUpForSomeOfTheRotationThatPairsLose) {
    const double zero = nll(8, 8, Factorization::none);
    const double fitted = nll(8, 8, Factorization::none, NopePhase::fitted);
    EXPECT_NEAR(zero, 3.365, kTolerance);
    EXPECT_LT(fitted, zero - 0.005);
    // With half of the pairs there is more to make up for.
    const double fewer_zero = nll(4, 8, Factorization::none);
    const double fewer_fitted = nll(4, 8, Factorization::none, NopePhase::fitted);
    EXPECT_NEAR(fewer_zero, 4.079, kTolerance);
    EXPECT_NEAR(fewer_fitted, 3.978, kTolerance);
    EXPECT_LT(fewer_fitted, fewer_zero - 0.05);
    EXPECT_GT(fewer_zero - fewer_fitted, zero - fitted);
}

TEST_F(AttentionGolden, WhitenedFactorsLoseLessThanJointOnesAndBalancedOnesLess) {
    const double joint = nll(8, 8, Factorization::joint);
    const double unbalanced = nll(8, 8, Factorization::whitened, NopePhase::zero, {KvBalance::How::none, 1});
    const double equal_energy = nll(8, 8, Factorization::whitened, NopePhase::zero, {KvBalance::How::factor, 1});
    EXPECT_NEAR(joint, 4.097, kTolerance);
    EXPECT_LT(unbalanced, joint - 0.1);
    EXPECT_LT(equal_energy, unbalanced - 0.01);
}

TEST_F(AttentionGolden, ErrorsWeightedByQueriesAndOutputsCostLessWherePhasesAreFitted) {
    for (const auto& [rope_dim, kv_rank] : {std::pair{8, 8}, std::pair{4, 12}}) {
        const double whitened = nll(rope_dim, kv_rank, Factorization::whitened, NopePhase::fitted);
        const double weighted = nll(rope_dim, kv_rank, Factorization::weighted, NopePhase::fitted);
        EXPECT_LT(weighted, whitened - 0.005) << rope_dim << '+' << kv_rank;
    }
}

}  // namespace
}  // namespace mha2mla::test
