// What aligning on text saves of the damage that the paper's default does, without fine-tuning.
#include "mha2mla/align.hpp"
#include "mha2mla/convert.hpp"
#include "mha2mla/evaluate.hpp"
#include "mha2mla/token_file.hpp"
#include "support/shared.hpp"
#include "support/temporary.hpp"

namespace mha2mla::test {
namespace {

TEST(AlignGolden, EveryStepSavesSomeOfWhatTheDefaultLosesAtTwoThirdsLessCache) {
    MHA2MLA_NEEDS_SHARED("models/TinyStories-656K");
    const Model source = Model::open(shared("models/TinyStories-656K"));
    const auto golden = shared("golden/TinyStories-656K");
    const auto evaluation =
        make_windows(source.config, read_token_file(golden / "eval_tokens.u16", TokenFormat::u16, 2048), {256, 24});
    const auto calibration = make_windows(
        source.config, read_token_file(golden / "calibration_tokens.u16", TokenFormat::u16, 2048), {256, 80});
    Observer observer;
    const TemporaryDirectory directory;
    const auto nll = [&](const Model& model) { return evaluate(model, evaluation, 256, observer).nll; };

    StagedPlan by_paper;
    by_paper.rope = {"2-norm", 2, 0};
    by_paper.kv_rank = 8;
    const PairRanks ranks = read_rank_file(golden / "2_norm_rank.pth");
    (void)convert(source, directory / "paper", {by_paper}, {&ranks}, observer);

    const auto aligned_nll = [&](const AlignQuality& quality, const std::string& name) {
        const AlignRequest request{{0.6875, {}, {}, quality}, 80, 256};
        Aligner aligner(source, calibration, request.seq_len, request.options, observer);
        const ConvertReport report =
            convert(source, directory / name, {request}, {nullptr, nullptr, &aligner}, observer);
        EXPECT_GE(report.plan.reduction(), 0.6875);
        return nll(Model::open(directory / name));
    };
    // Each step of the way saves some of what the one before it lost.
    const double paper = nll(Model::open(directory / "paper"));
    const double initial = aligned_nll({"", 0, 2048, ""}, "initial");
    const double alone = aligned_nll({"", 30, 2048, ""}, "alone");
    const double together = aligned_nll({"", 30, 2048, "", 2, 40}, "together");
    EXPECT_LT(initial, paper);
    EXPECT_LT(alone, initial);
    EXPECT_LT(together, alone);
    EXPECT_LT(nll(source), together);
}

TEST(AlignGolden, OneRotatedKeyForAllHeadsLosesLessThanOneForEach) {
    MHA2MLA_NEEDS_SHARED("models/TinyStories-656K");
    const Model source = Model::open(shared("models/TinyStories-656K"));
    const auto golden = shared("golden/TinyStories-656K");
    const auto evaluation =
        make_windows(source.config, read_token_file(golden / "eval_tokens.u16", TokenFormat::u16, 2048), {256, 24});
    const auto calibration = make_windows(
        source.config, read_token_file(golden / "calibration_tokens.u16", TokenFormat::u16, 2048), {256, 40});
    Observer observer;
    const TemporaryDirectory directory;
    const double original = evaluate(source, evaluation, 256, observer).nll;
    const auto lost = [&](const LatentLayout& layout) {
        const AlignRequest request{{0.8125, {}, {}, {"", 15, 1024, ""}, &layout}, 40, 256};
        Aligner aligner(source, calibration, request.seq_len, request.options, observer);
        const auto report = convert(source, directory / layout.name, {request}, {nullptr, nullptr, &aligner}, observer);
        EXPECT_GE(report.plan.reduction(), 0.8125);
        return evaluate(Model::open(directory / layout.name), evaluation, 256, observer).nll - original;
    };
    EXPECT_LT(lost(deepseek_layout()), 0.8 * lost(reference_layout()));
}

}  // namespace
}  // namespace mha2mla::test
