// What aligning on text saves of the damage that the paper's default does, without fine-tuning.
#include "mha2mla/align.hpp"
#include "mha2mla/convert.hpp"
#include "mha2mla/evaluate.hpp"
#include "mha2mla/token_file.hpp"
#include "support/shared.hpp"
#include "support/temporary.hpp"

namespace mha2mla::test {
namespace {

class AlignGolden : public testing::Test {
protected:
    void SetUp() override {
        MHA2MLA_NEEDS_SHARED("models/TinyStories-656K");
        source_.emplace(Model::open(shared("models/TinyStories-656K")));
        evaluation_ = windows("eval_tokens.u16", 24);
    }
    [[nodiscard]] std::vector<TokenId> windows(const char* tokens, std::int64_t count) const {
        return make_windows(source_->config, read_token_file(golden_ / tokens, TokenFormat::u16, 2048),
                            {kSeqLen, count});
    }
    [[nodiscard]] double nll(const Model& model) { return evaluate(model, evaluation_, kSeqLen, observer_).nll; }
    /// The NLL of an aligned conversion. @param sequences of calibration text.
    double aligned_nll(const AlignOptions& options, std::int64_t sequences, const std::string& name) {
        const AlignRequest request{options, sequences, kSeqLen};
        const auto calibration = windows("calibration_tokens.u16", sequences);
        Aligner aligner(*source_, calibration, kSeqLen, options, observer_);
        const ConvertReport report =
            convert(*source_, directory_ / name, {request}, {nullptr, nullptr, &aligner}, observer_);
        EXPECT_GE(report.plan.reduction(), options.kv_reduction);
        return nll(Model::open(directory_ / name));
    }

    static constexpr std::int64_t kSeqLen = 256;
    std::filesystem::path golden_ = shared("golden/TinyStories-656K");
    TemporaryDirectory directory_;
    Observer observer_;
    std::optional<Model> source_;
    std::vector<TokenId> evaluation_;
};

TEST_F(AlignGolden, EveryStepSavesSomeOfWhatTheDefaultLosesAtTwoThirdsLessCache) {
    StagedPlan by_paper;
    by_paper.rope = {"2-norm", 2, 0};
    by_paper.kv_rank = 8;
    const PairRanks ranks = read_rank_file(golden_ / "2_norm_rank.pth");
    (void)convert(*source_, directory_ / "paper", {by_paper}, {&ranks}, observer_);
    const auto with = [&](const AlignQuality& quality, const char* name) {
        return aligned_nll({0.6875, {}, {}, quality}, 80, name);
    };
    // Each step of the way saves some of what the one before it lost.
    const double paper = nll(Model::open(directory_ / "paper"));
    const double initial = with({"", 0, 2048, ""}, "initial");
    const double alone = with({"", 30, 2048, ""}, "alone");
    const double together = with({"", 30, 2048, "", 2, 40}, "together");
    EXPECT_LT(initial, paper);
    EXPECT_LT(alone, initial);
    EXPECT_LT(together, alone);
    EXPECT_LT(nll(*source_), together);
}

TEST_F(AlignGolden, OneRotatedKeyForAllHeadsLosesLessThanOneForEach) {
    const double original = nll(*source_);
    const auto lost = [&](const LatentLayout& layout) {
        return aligned_nll({0.8125, {}, {}, {"", 15, 1024, ""}, &layout}, 40, std::string(layout.name)) - original;
    };
    EXPECT_LT(lost(deepseek_layout()), 0.8 * lost(reference_layout()));
}

/// Each layer turns the queries of what stops rotating in the way that leaves it less error: by the mean alone, NLL
/// is 3.486, by its phase alone 3.464.
TEST_F(AlignGolden, QueriesAreTurnedInTheBetterOfTwoWays) {
    EXPECT_LT(aligned_nll({0.5, {}, {}, {"", 0, 2048, ""}, &deepseek_layout()}, 480, "turned"), 3.463);
}

}  // namespace
}  // namespace mha2mla::test
