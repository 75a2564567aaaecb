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

    Aligner aligner(source, calibration, 256, {0.6875, {}, {}, {"", 30, 2048, ""}}, observer);
    ConvertOptions aligned;
    aligned.rope = {"attention", aligner.chosen().rope_dim, 0};
    aligned.kv_rank = aligner.chosen().kv_rank;
    aligned.aligner = &aligner;
    const ConvertReport report = convert(source, directory / "aligned", aligned, nullptr, observer);
    EXPECT_GE(report.plan.reduction(), 0.6875);

    const double original = nll(source);
    const double gap_of_paper = nll(Model::open(directory / "paper")) - original;
    const double gap = nll(Model::open(directory / "aligned")) - original;
    EXPECT_LT(gap / gap_of_paper, 0.65) << gap << " of " << gap_of_paper;
    EXPECT_GT(gap, 0);
}

}  // namespace
}  // namespace mha2mla::test
