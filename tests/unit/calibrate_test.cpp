// Calibration gives the same bits in memory and on disk, with any number of threads, at once and in rounds.
#include "mha2mla/calibration.hpp"

#include <algorithm>
#include <filesystem>
#include <random>

#include "mha2mla/rope.hpp"
#include "mha2mla/threads.hpp"
#include "support/expect_error.hpp"
#include "support/temporary.hpp"
#include "support/tiny_model.hpp"

namespace mha2mla::test {
namespace {

constexpr std::int64_t kSeqLen = 96;  // 21 sequences to a block of tokens

std::vector<TokenId> random_ids(std::int64_t sequences) {
    std::mt19937 random(3);
    std::vector<TokenId> ids(static_cast<std::size_t>(sequences * kSeqLen));
    for (auto& id : ids) id = static_cast<TokenId>(random() % 64);
    return ids;
}

class Calibrate : public testing::Test {
protected:
    Calibrate() {
        write_tiny_model(directory_ / "model", {.layers = 3});
        std::filesystem::create_directory(directory_ / "spill");
    }
    [[nodiscard]] Model model() const { return Model::open(directory_ / "model"); }
    [[nodiscard]] std::filesystem::path spill() const { return directory_ / "spill"; }
    /// The least budget, which leaves memory for one block of hidden states only.
    [[nodiscard]] CalibrationOptions least(std::int64_t sequences) const {
        return {least_calibration_memory(model().config, sequences, kSeqLen), spill()};
    }
    TemporaryDirectory directory_;
    ThreadScope threads_{2};
    Observer observer_;
};

void expect_same(const CalibrationStats& a, const CalibrationStats& b) {
    EXPECT_EQ(a.sequences, b.sequences);
    EXPECT_EQ(a.mean_query_norm, b.mean_query_norm);  // bit for bit
    EXPECT_EQ(a.mean_key_norm, b.mean_key_norm);
}

TEST_F(Calibrate, SpilledEqualsInMemoryWithAnyNumberOfThreads) {
    const auto ids = random_ids(50);
    const auto run = [&](int threads, bool on_disk) {
        const ThreadScope scope(threads);
        return calibrate(model(), ids, kSeqLen, observer_, on_disk ? least(50) : CalibrationOptions{});
    };
    const CalibrationStats memory = run(1, false);
    EXPECT_EQ(memory.sequences, 50);
    EXPECT_GT(*std::min_element(memory.mean_key_norm.begin(), memory.mean_key_norm.end()), 0.0);
    expect_same(run(1, true), memory);
    expect_same(run(2, false), memory);
    expect_same(run(2, true), memory);
    EXPECT_TRUE(std::filesystem::is_empty(spill()));
}

TEST_F(Calibrate, TheDiskIsOnlyUsedWhereTheBudgetAsksForIt) {
    const auto ids = random_ids(50);
    CalibrationOptions options = least(50);
    options.spill_directory = directory_ / "absent";
    expect_error(ErrorCode::io, {"absent", "TMPDIR"},
                 [&] { (void)calibrate(model(), ids, kSeqLen, observer_, options); });
    options.max_memory += (50 - 21) * kSeqLen * 32 * sizeof(float);  // all other hidden states
    EXPECT_EQ(calibrate(model(), ids, kSeqLen, observer_, options).sequences, 50);
    options.max_memory -= 1;
    expect_error(ErrorCode::io, {"absent"}, [&] { (void)calibrate(model(), ids, kSeqLen, observer_, options); });
}

TEST_F(Calibrate, NamesTheLeastBudget) {
    const auto ids = random_ids(50);
    CalibrationOptions options = least(50);
    const std::string needed = std::to_string(options.max_memory) + " bytes";
    options.max_memory -= 1;
    expect_error(ErrorCode::usage, {needed, "allow more memory"},
                 [&] { (void)calibrate(model(), ids, kSeqLen, observer_, options); });
}

TEST_F(Calibrate, RoundsEndWhereTheyAreToldAndEqualOneRun) {
    const auto ids = random_ids(200);
    std::vector<std::int64_t> rounds;
    const auto run = [&](std::int64_t enough, const CalibrationOptions& options) {
        rounds.clear();
        return calibrate_in_rounds(
            model(), ids, kSeqLen, observer_,
            [&](const CalibrationStats& stats) {
                rounds.push_back(stats.sequences);
                return stats.sequences >= enough;
            },
            options);
    };
    const CalibrationStats stats = run(60, {});
    EXPECT_EQ(rounds, (std::vector<std::int64_t>{21, 42, 63}));  // whole blocks of 21 sequences
    expect_same(calibrate(model(), std::span(ids).first(63 * kSeqLen), kSeqLen, observer_), stats);
    expect_same(run(60, least(63)), stats);
    EXPECT_EQ(run(1000, {}).sequences, 200);
    expect_same(run(1000, {}), calibrate(model(), ids, kSeqLen, observer_));
}

TEST_F(Calibrate, CanBeInterruptedOnDisk) {
    struct Impatient : Observer {
        [[nodiscard]] bool cancelled() const override { return steps > 4; }
        void progress(std::string_view, std::int64_t, std::int64_t) override { ++steps; }
        int steps = 0;
    } impatient;
    expect_error(ErrorCode::interrupted, {"interrupted"},
                 [&] { (void)calibrate(model(), random_ids(50), kSeqLen, impatient, least(50)); });
    EXPECT_TRUE(std::filesystem::is_empty(spill()));
}

TEST_F(Calibrate, SettlingSurvivesAFile) {
    CalibrationStats stats = calibrate(model(), random_ids(2), kSeqLen, observer_);
    save_stats(directory_ / "plain", stats);
    EXPECT_FALSE(load_stats(directory_ / "plain").settling);
    stats.settling = {4, 1};
    save_stats(directory_ / "settled", stats);
    const auto loaded = load_stats(directory_ / "settled");
    ASSERT_TRUE(loaded.settling);
    EXPECT_EQ(loaded.settling->rope_dim, 4);
    EXPECT_EQ(loaded.settling->unsettled_layers, 1);
}

/// Two layers, one head of three pairs; the first layer prefers `favourite`, the second the first pair.
CalibrationStats stats_with(std::size_t favourite, std::int64_t sequences) {
    CalibrationStats stats;
    stats.layers = 2;
    stats.heads = stats.kv_heads = 1;
    stats.pairs = 3;
    stats.sequences = sequences;
    stats.mean_query_norm = {1, 1, 1, 9, 1, 1};
    stats.mean_key_norm = {1, 1, 1, 1, 1, 1};
    stats.mean_query_norm[favourite] = 5;
    return stats;
}

TEST(SelectionWatch, WantsTwoMoreRoundsAndTwiceTheSequences) {
    SelectionWatch watch(2);
    EXPECT_FALSE(watch.add(stats_with(0, 10)));
    EXPECT_EQ(watch.unsettled_layers(), 2);
    EXPECT_FALSE(watch.add(stats_with(1, 15)));
    EXPECT_FALSE(watch.add(stats_with(1, 23)));  // the second layer is settled: the same at 10, 15 and 23
    EXPECT_EQ(watch.unsettled_layers(), 1);
    EXPECT_FALSE(watch.add(stats_with(1, 29)));  // two rounds, but not twice 15
    EXPECT_TRUE(watch.add(stats_with(1, 30)));
    EXPECT_FALSE(watch.add(stats_with(2, 60)));
    EXPECT_EQ(watch.unsettled_layers(), 1);
}

TEST(SelectionWatch, OnlyLooksAtThePairsThatAreKept) {
    SelectionWatch watch(0);  // keeps none
    EXPECT_FALSE(watch.add(stats_with(0, 10)));
    EXPECT_FALSE(watch.add(stats_with(1, 20)));
    EXPECT_TRUE(watch.add(stats_with(2, 40)));
}

}  // namespace
}  // namespace mha2mla::test
