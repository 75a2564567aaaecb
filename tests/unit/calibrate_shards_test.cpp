// Statistics that several machines gathered are those of one run.
#include <algorithm>
#include <random>

#include "mha2mla/error.hpp"
#include "mha2mla/statistics.hpp"
#include "support/expect_error.hpp"
#include "support/temporary.hpp"
#include "support/tiny_model.hpp"

namespace mha2mla::test {
namespace {

namespace fs = std::filesystem;

class CalibrateShards : public testing::Test {
protected:
    CalibrateShards() {
        std::mt19937 random(5);
        std::string bytes;
        for (int i = 0; i < 96 * 61 + 5; ++i) bytes += {static_cast<char>(random() % 64), '\0'};
        write_text(directory_ / "tokens.u16", bytes);
    }
    [[nodiscard]] CalibrationStats run(std::optional<Shard> shard, const StatisticSet& gather = {{"attention"}, true},
                                       std::int64_t samples = 61, std::int64_t seq_len = 96) {
        SampleOptions options{.samples = samples, .seq_len = seq_len};
        options.shard = shard;
        return calibrate_on_text(model_, {.tokens = directory_ / "tokens.u16"}, options, 4, gather, 0, observer_);
    }
    /// The files of all shards, the last one first.
    [[nodiscard]] std::vector<fs::path> files(std::int64_t count, const StatisticSet& gather = {{"attention"}, true},
                                              std::int64_t samples = 61, std::int64_t seq_len = 96) {
        std::vector<fs::path> paths;
        for (std::int64_t index = count - 1; index >= 0; --index) {
            paths.push_back(directory_ / ("part-" + std::to_string(index)));
            save_stats(paths.back(), run(Shard{index, count}, gather, samples, seq_len), observer_);
        }
        return paths;
    }
    void expect_equal(const CalibrationStats& merged, const CalibrationStats& whole) const {
        EXPECT_EQ(merged.sequences, whole.sequences);
        EXPECT_EQ(merged.seq_len, whole.seq_len);
        EXPECT_EQ(merged.orders, whole.orders);
        EXPECT_FALSE(merged.part);
        expect_near(merged.mean_query_norm, whole.mean_query_norm);
        expect_near(merged.mean_key_norm, whole.mean_key_norm);
        ASSERT_EQ(merged.inputs != nullptr, gathered_in(whole).moments);
        if (merged.inputs == nullptr) return;
        for (std::int64_t layer = 0; layer < whole.layers; ++layer) {
            EXPECT_EQ(merged.inputs->sample(layer), whole.inputs->sample(layer));
            EXPECT_TRUE(merged.inputs->moment(layer).isApprox(whole.inputs->moment(layer), 1e-12)) << layer;
        }
    }
    static void expect_near(const std::vector<double>& a, const std::vector<double>& b) {
        ASSERT_EQ(a.size(), b.size());
        for (std::size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i], b[i], 1e-12 * b[i]);
    }

    TemporaryDirectory directory_;
    Model model_ = (write_tiny_model(directory_ / "model", {.layers = 3}), Model::open(directory_ / "model"));
    Observer observer_;
};

TEST_F(CalibrateShards, TogetherAreOneRun) {
    const StatisticSet norms, moments{{}, true}, all{{"attention"}, true}, order{{"attention"}, false};
    for (const StatisticSet& gather : {norms, moments, all, order}) {
        const CalibrationStats whole = run(std::nullopt, gather);
        for (const std::int64_t count : {1, 2}) expect_equal(merge_stats(files(count, gather)), whole);
    }
    // The sample is in the first three of them, and each has another number of sequences than the next.
    expect_equal(merge_stats(files(7, moments)), run(std::nullopt, moments));
    expect_equal(merge_stats(files(61, moments)), run(std::nullopt, moments));
    // Sequences longer than what the sample has of each.
    expect_equal(merge_stats(files(3, moments, 9, 600)), run(std::nullopt, moments, 9, 600));
}

TEST_F(CalibrateShards, SavedTheyAreReadAsOneRun) {
    const auto merged = directory_ / "merged";
    save_stats(merged, merge_stats(files(2)), observer_);
    expect_equal(load_stats(merged), run(std::nullopt));
    StagedPlan plan;
    plan.rope = {"2-norm", 4, 0};
    EXPECT_NO_THROW(check_statistics(plan, {.stats = merged}, model_.config, observer_));
    expect_error(ErrorCode::usage, {"part-1", "shard 2/2"},
                 [&] { check_statistics(plan, {.stats = directory_ / "part-1"}, model_.config, observer_); });
}

TEST_F(CalibrateShards, OnlyAllOfOneRunAreMerged) {
    const auto parts = files(3, {});
    const auto merge = [](const std::vector<fs::path>& paths) { (void)merge_stats(paths); };
    expect_error(ErrorCode::usage, {"no files"}, [&] { merge({}); });
    expect_error(ErrorCode::usage, {"missing", "2/3"}, [&] { merge({parts[0], parts[2]}); });
    expect_error(ErrorCode::usage, {"missing", "1/3, 3/3"}, [&] { merge({parts[1]}); });
    expect_error(ErrorCode::usage, {"part-1", "both shard 2/3"}, [&] {
        merge({parts[0], parts[1], parts[1], parts[2]});
    });
    const auto other = [&](const CalibrationStats& stats) {
        save_stats(directory_ / "other", stats, observer_);
        return std::vector<fs::path>{directory_ / "other", parts[1], parts[2]};
    };
    expect_error(ErrorCode::usage, {"other", "whole run"}, [&] { merge(other(run(std::nullopt, {}))); });
    expect_error(ErrorCode::usage, {"different runs"}, [&] { merge(other(run(Shard{2, 3}, {}, 60))); });
    expect_error(ErrorCode::usage, {"different runs"}, [&] { merge(other(run(Shard{2, 3}, {}, 61, 95))); });
    expect_error(ErrorCode::usage, {"different runs"}, [&] { merge(other(run(Shard{2, 3}, {{}, true}))); });
    expect_error(ErrorCode::usage, {"different runs"}, [&] { merge(other(run(Shard{3, 4}, {}))); });
    CalibrationStats damaged = load_stats(parts[0]);
    damaged.sequences = 0;
    expect_error(ErrorCode::format, {"other", "no sequence", "3/3"}, [&] { merge(other(damaged)); });
    damaged.sequences = 20;
    damaged.seq_len = 7;
    expect_error(ErrorCode::format, {"other", "another form"}, [&] { merge(other(damaged)); });
}

TEST_F(CalibrateShards, NeedSequencesAndTheSampleForOrders) {
    expect_error(ErrorCode::usage, {"61 sequences in 62 shards"}, [&] { (void)run(Shard{1, 62}); });
    // 21 sequences of 96 tokens are the sample.
    expect_error(ErrorCode::usage, {"the first has 20 of the first 21"}, [&] { (void)run(Shard{2, 3}); });
    EXPECT_EQ(run(Shard{2, 3}, {{}, true}).sequences, 21);
    EXPECT_EQ(run(Shard{1, 2}, {{"attention"}, false}).orders.size(), 0U) << "they are in the first";
}

TEST(Shard, RangesFollowEachOtherAndAreAlike) {
    for (const std::int64_t total : {1L, 7L, 64L, 1'000'003L, 9'000'000'000'000'000'000L}) {
        for (const std::int64_t count : {1, 3, 7, 1'000'000}) {
            std::int64_t before = 0;
            for (std::int64_t index = 0; index < std::min<std::int64_t>(count, 100); ++index) {
                const Shard::Range range = Shard{index, count}.range(total);
                EXPECT_EQ(range.first, before);
                EXPECT_LE(std::abs(range.size() - total / count), 1);
                before = range.last;
            }
            EXPECT_EQ((Shard{count - 1, count}.range(total).last), total);
        }
    }
}

}  // namespace
}  // namespace mha2mla::test
