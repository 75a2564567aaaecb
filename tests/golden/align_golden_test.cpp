// What aligning on text saves of the damage that the paper's default does, without fine-tuning.
#include "mha2mla/align.hpp"
#include "mha2mla/convert.hpp"
#include "mha2mla/evaluate.hpp"
#include "mha2mla/token_file.hpp"
#include "support/shared.hpp"
#include "support/temporary.hpp"

namespace mha2mla::test {
namespace {

TEST(AlignGolden, TinyStoriesAtTwoThirdsLessCacheLosesLittleOfWhatTheDefaultLoses) {
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

    ConvertOptions by_paper;
    by_paper.rope = {"2-norm", 2, 0};
    by_paper.kv_rank = 8;
    const PairRanks ranks = read_rank_file(golden / "2_norm_rank.pth");
    (void)convert(source, directory / "paper", by_paper, &ranks, observer);

    const double original = nll(source);
    const double gap_of_paper = nll(Model::open(directory / "paper")) - original;
    const auto ratio = [&](const AlignQuality& quality, const std::string& name) {
        Aligner aligner(source, calibration, 256, {0.6875, {}, {}, quality}, observer);
        ConvertOptions aligned;
        aligned.rope = {"attention", aligner.chosen().rope_dim, 0};
        aligned.kv_rank = aligner.chosen().kv_rank;
        aligned.aligner = &aligner;
        const ConvertReport report = convert(source, directory / name, aligned, nullptr, observer);
        EXPECT_GE(report.plan.reduction(), 0.6875);
        return (nll(Model::open(directory / name)) - original) / gap_of_paper;
    };
    const double alone = ratio({"", 30, 2048, ""}, "alone");
    EXPECT_GT(alone, 0);
    EXPECT_LT(alone, 0.65);
    const double together = ratio({"", 30, 2048, "", 2, 40}, "together");
    EXPECT_GT(together, 0);
    EXPECT_LT(together, 0.85 * alone) << alone;
}

}  // namespace
}  // namespace mha2mla::test
