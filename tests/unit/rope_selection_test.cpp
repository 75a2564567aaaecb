#include <algorithm>

#include "mha2mla/error.hpp"
#include "mha2mla/rope.hpp"
#include "support/expect_error.hpp"

namespace mha2mla::test {
namespace {

ModelConfig config_of(std::int64_t head_dim) {
    ModelConfig config;
    config.num_hidden_layers = 2;
    config.num_attention_heads = 4;
    config.num_key_value_heads = 2;
    config.head_dim = head_dim;
    return config;
}

CalibrationStats stats_of(const std::vector<double>& query, const std::vector<double>& key) {
    CalibrationStats stats{1, 2, 1, 4, query, key, 1, 1, "", ""};
    return stats;
}

using Pairs = std::vector<std::int64_t>;

TEST(RopeSelection, ThePapersExamples) {
    const ModelConfig config = config_of(16);
    const auto first_head = [&](const char* name, std::int64_t start = 0) {
        return select_rope(config, {name, 4, start}, nullptr).pairs.at(0).at(0);
    };
    EXPECT_EQ(first_head("high"), (Pairs{0, 1}));
    EXPECT_EQ(first_head("low"), (Pairs{6, 7}));
    EXPECT_EQ(first_head("uniform"), (Pairs{0, 4}));
    EXPECT_EQ(first_head("uniform", 3), (Pairs{3, 7}));
    // r does not divide the number of pairs: floor(k * 8 / 3)
    EXPECT_EQ(select_rope(config, {"uniform", 6, 0}, nullptr).pairs[1][1], (Pairs{0, 2, 5}));
}

TEST(RopeSelection, EveryStrategyKeepsExactlyRAscendingPairs) {
    const ModelConfig config = config_of(16);
    PairRanks ranks{2, 2, 16, {}};
    for (int head = 0; head < 4; ++head) {
        for (int half = 0; half < 2; ++half) {
            for (const int rank : {3, 0, 7, 1, 6, 2, 5, 4}) ranks.values.push_back(static_cast<std::uint8_t>(rank));
        }
    }
    for (const auto& strategy : rope_strategies()) {
        for (std::int64_t rope_dim = 0; rope_dim <= 16; rope_dim += 2) {
            const auto selection = select_rope(config, {std::string(strategy.name), rope_dim, 0}, &ranks);
            ASSERT_EQ(selection.pairs.size(), 2U);
            for (const auto& layer : selection.pairs) {
                for (const auto& pairs : layer) {
                    EXPECT_EQ(pairs.size(), static_cast<std::size_t>(rope_dim / 2)) << strategy.name;
                    EXPECT_TRUE(std::is_sorted(pairs.begin(), pairs.end(), std::less_equal<>())) << strategy.name;
                }
            }
            // The rank file that stands for a selection selects it again.
            const PairRanks standing = ranks_selecting(selection, config);
            EXPECT_EQ(select_rope(config, {"2-norm", rope_dim, 0}, &standing).pairs, selection.pairs);
        }
    }
}

TEST(RopeSelection, ScoresSumOverTheGroupAndTiesGoToTheSmallerPair) {
    // Two query heads share the KV head: scores are (1+3, 1+1, 2+2, 0+1) * (1, 2, 1, 1) = (4, 4, 4, 1).
    const PairRanks ranks = two_norm_ranks(stats_of({1, 1, 2, 0, 3, 1, 2, 1}, {1, 2, 1, 1}));
    EXPECT_EQ(ranks.values, (std::vector<std::uint8_t>{0, 1, 2, 3, 0, 1, 2, 3}));
    const PairRanks other = two_norm_ranks(stats_of({1, 1, 2, 0, 3, 1, 2, 9}, {1, 2, 1.5, 1}));
    EXPECT_EQ(other.values, (std::vector<std::uint8_t>{2, 3, 1, 0, 2, 3, 1, 0}));
}

TEST(RopeSelection, ImpossibleChoicesAreRefused) {
    const ModelConfig config = config_of(16);
    const auto select = [&](RopeOptions options) { return [=] { (void)select_rope(config, options, nullptr); }; };
    expect_error(ErrorCode::usage, {"even", "16", "3"}, select({"high", 3, 0}));
    expect_error(ErrorCode::usage, {"18"}, select({"high", 18, 0}));
    expect_error(ErrorCode::usage, {"uniform-start", "at most 3"}, select({"uniform", 4, 4}));
    expect_error(ErrorCode::usage, {"2-norm", "statistics"}, select({"2-norm", 4, 0}));
    expect_error(ErrorCode::usage, {"'best'", "2-norm, attention, high, low, uniform"}, select({"best", 4, 0}));
}

}  // namespace
}  // namespace mha2mla::test
