// Statistics of TinyStories-656K compared with those of the reference implementation.
#include "mha2mla/calibration.hpp"
#include "mha2mla/rope.hpp"
#include "mha2mla/threads.hpp"
#include "mha2mla/token_file.hpp"
#include "support/shared.hpp"
#include "support/temporary.hpp"

namespace mha2mla::test {
namespace {

constexpr const char* kModel = "models/TinyStories-656K";
constexpr const char* kGolden = "golden/TinyStories-656K";

CalibrationStats calibrate_as_recorded() {
    const Model model = Model::open(shared(kModel));
    const auto ids = read_token_file(shared(kGolden) / "calibration_tokens.u16", TokenFormat::u16,
                                     model.config.vocab_size, 64 * 256);
    Observer observer;
    return calibrate(model, ids, 256, observer);
}

void expect_norms(const std::vector<double>& norms, const nlohmann::json& recorded) {
    std::size_t next = 0;
    for (const auto& layer : recorded) {
        for (const auto& head : layer) {
            for (const auto& norm : head) {
                const auto value = norm.get<double>();
                EXPECT_NEAR(norms.at(next++), value, 1e-4 * value);
            }
        }
    }
    EXPECT_EQ(next, norms.size());
}

TEST(CalibrationGolden, NormsAndRanksEqualTheReference) {
    MHA2MLA_NEEDS_SHARED(kModel);
    const auto stats = calibrate_as_recorded();
    const auto recorded = read_json(shared(kGolden) / "reference.json").at("calibration");
    expect_norms(stats.mean_query_norm, recorded.at("mean_query_norm"));
    expect_norms(stats.mean_key_norm, recorded.at("mean_key_norm"));
    expect_norms(stats.scores(), recorded.at("score"));
    const PairRanks ranks = two_norm_ranks(stats);
    const PairRanks reference = read_rank_file(shared(kGolden) / "2_norm_rank.pth");
    EXPECT_EQ(ranks.values, reference.values);
}

TEST(CalibrationGolden, DoesNotDependOnThreadsAndSurvivesAFile) {
    MHA2MLA_NEEDS_SHARED(kModel);
    CalibrationStats one;
    CalibrationStats three;
    {
        const ThreadScope scope(1);
        one = calibrate_as_recorded();
    }
    {
        const ThreadScope scope(3);
        three = calibrate_as_recorded();
    }
    EXPECT_EQ(one.mean_query_norm, three.mean_query_norm);  // bit for bit
    EXPECT_EQ(one.mean_key_norm, three.mean_key_norm);
    const TemporaryDirectory directory;
    const auto path = directory.path() / "stats.safetensors";
    one.model = "a model";
    Observer observer;
    save_stats(path, one, observer);
    const CalibrationStats loaded = load_stats(path);
    EXPECT_EQ(loaded.mean_query_norm, one.mean_query_norm);
    EXPECT_EQ(loaded.mean_key_norm, one.mean_key_norm);
    EXPECT_EQ(loaded.sequences, 64);
    EXPECT_EQ(loaded.model, "a model");
}

}  // namespace
}  // namespace mha2mla::test
