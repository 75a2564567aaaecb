// Calibration gives the same bits in memory and on disk, with any number of threads, at once and in rounds.
#include "mha2mla/calibration.hpp"

#include <algorithm>
#include <filesystem>
#include <random>

#include "mha2mla/rope.hpp"
#include "mha2mla/runtime.hpp"
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
        return {least_calibration_memory(model().config, sequences, kSeqLen, {}), spill()};
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
    save_stats(directory_ / "plain", stats, observer_);
    EXPECT_FALSE(load_stats(directory_ / "plain").settling);
    stats.settling = {4, 1};
    save_stats(directory_ / "settled", stats, observer_);
    const auto loaded = load_stats(directory_ / "settled");
    ASSERT_TRUE(loaded.settling);
    EXPECT_EQ(loaded.settling->rope_dim, 4);
    EXPECT_EQ(loaded.settling->unsettled_layers, 1);
}

using Inputs = CalibrationOptions::Inputs;

TEST_F(Calibrate, MomentsAndSamplesAreThoseOfTheLayerInputs) {
    const auto ids = random_ids(50);
    CalibrationOptions options;
    options.inputs = Inputs::moments;
    const CalibrationStats stats = calibrate(model(), ids, kSeqLen, observer_, options);
    ASSERT_NE(stats.inputs, nullptr);
    const Model source = model();
    std::vector<MatrixD> moments(3, MatrixD::Zero(32, 32));
    std::vector<Matrix> inputs(3);
    (void)prefill(source, ids, kSeqLen, observer_, [&](std::int64_t layer, const TappedAttention& tapped) {
        const auto at = static_cast<std::size_t>(layer);
        const MatrixD x = tapped.input.cast<double>();
        moments[at] += x.transpose() * x / (50.0 * kSeqLen);
        if (inputs[at].size() == 0) inputs[at] = tapped.input;
    });
    EXPECT_EQ(stats.inputs->extent().sample_seq_len, kSeqLen);
    EXPECT_EQ(stats.inputs->extent().sample_tokens, 21 * kSeqLen);  // whole sequences within 2048
    for (std::int64_t layer = 0; layer < 3; ++layer) {
        const auto at = static_cast<std::size_t>(layer);
        const MatrixD moment = stats.inputs->moment(layer);
        EXPECT_EQ(moment, MatrixD(moment.transpose()));
        EXPECT_LT((moment - moments[at]).norm(), 1e-12 * moments[at].norm());
        EXPECT_EQ(stats.inputs->sample(layer), Matrix(inputs[at].topRows(21 * kSeqLen)));
    }
}

TEST_F(Calibrate, MomentsDependOnNeitherBudgetNorThreadsNorRounds) {
    const auto ids = random_ids(63);
    CalibrationOptions options;
    options.inputs = Inputs::moments;
    const CalibrationStats expected = calibrate(model(), ids, kSeqLen, observer_, options);
    const auto same = [&](const CalibrationStats& stats) {
        for (std::int64_t layer = 0; layer < 3; ++layer) {
            EXPECT_EQ(stats.inputs->moment(layer), expected.inputs->moment(layer));
            EXPECT_EQ(stats.inputs->sample(layer), expected.inputs->sample(layer));
        }
    };
    {
        const ThreadScope one(1);
        same(calibrate(model(), ids, kSeqLen, observer_, options));
    }
    CalibrationOptions little{least_calibration_memory(model().config, 63, kSeqLen, Inputs::moments), spill(),
                              Inputs::moments};
    same(calibrate(model(), ids, kSeqLen, observer_, little));
    const auto never = [](const CalibrationStats&) { return false; };
    same(calibrate_in_rounds(model(), ids, kSeqLen, observer_, never, options));  // of 21 sequences
    EXPECT_TRUE(std::filesystem::is_empty(spill()));
}

TEST_F(Calibrate, InputsAndAttentionRanksSurviveAFile) {
    CalibrationOptions options;
    options.inputs = Inputs::moments;
    CalibrationStats stats = calibrate(model(), random_ids(4), kSeqLen, observer_, options);
    add_order(find_rope_strategy("attention").order, model(), stats, observer_);
    save_stats(directory_ / "stats", stats, observer_);
    const CalibrationStats loaded = load_stats(directory_ / "stats");
    EXPECT_EQ(loaded.orders, stats.orders);
    check_stats_fit(loaded, model().config, "stats");
    for (std::int64_t layer = 0; layer < 3; ++layer) {
        EXPECT_EQ(loaded.inputs->moment(layer), stats.inputs->moment(layer));
        EXPECT_EQ(loaded.inputs->sample(layer), stats.inputs->sample(layer));
    }
    write_tiny_model(directory_ / "wider", {.layers = 3, .hidden = 48});
    expect_error(ErrorCode::usage, {"stats", "hidden_size is 32", "48"},
                 [&] { check_stats_fit(loaded, Model::open(directory_ / "wider").config, "stats"); });
    stats.inputs = nullptr;
    stats.orders.clear();
    save_stats(directory_ / "plain", stats, observer_);
    EXPECT_EQ(load_stats(directory_ / "plain").inputs, nullptr);
    expect_error(ErrorCode::usage, {"rank pairs by attention"},
                 [&] { (void)ranks_for(find_rope_strategy("attention"), stats); });
}

/// Statistics that say something else than what they hold.
TEST_F(Calibrate, LyingFilesAreRefusedByTensor) {
    CalibrationOptions options;
    options.inputs = Inputs::moments;
    CalibrationStats stats = calibrate(model(), random_ids(4), kSeqLen, observer_, options);
    add_order(find_rope_strategy("attention").order, model(), stats, observer_);
    const auto path = directory_ / "stats";
    save_stats(path, stats, observer_);
    const std::string good = read_text(path);
    const auto attempt = [&](const std::string& from, const std::string& to,
                             const std::vector<std::string_view>& words) {
        std::string text = good;
        ASSERT_EQ(from.size(), to.size());
        ASSERT_NE(text.find(from), std::string::npos) << from;
        text.replace(text.find(from), from.size(), to);
        write_text(path, text);
        expect_error(ErrorCode::format, words, [&] { (void)load_stats(path); });
    };
    attempt("\"input_moment.2\"", "\"input_moment.9\"", {"input_moment.2", "there is none", "gather moments"});
    attempt("\"input_sample.1\"", "\"input_sample.9\"", {"input_sample.1", "there is none"});
    attempt("\"sample_seq_len\":\"96\"", "\"sample_seq_len\":\"95\"", {"input_sample.0", "whole sequences of 95"});
    attempt("[384,32]", "[32,384]", {"384", "tokens"});
    attempt("\"attention_rank\":{\"dtype\":\"U8\"", "\"attention_rank\":{\"dtype\":\"I8\"", {"attention_rank", "I8"});
    std::string text = good;
    std::fill(text.end() - 3 * 2 * 4, text.end(), '\1');  // ranks are the last tensor
    write_text(path, text);
    expect_error(ErrorCode::format, {"attention_rank", "each pair of a head once"}, [&] { (void)load_stats(path); });
    write_text(path, good.substr(0, good.size() - 10));
    expect_error(ErrorCode::format, {"stats"}, [&] { (void)load_stats(path); });
}

/// Rotation that does nothing is needed least: a pair whose queries are zero is the last of its head.
TEST_F(Calibrate, APairWithoutQueriesIsTheFirstToGo) {
    TinyModel tiny{.layers = 1};
    auto tensors = tiny_tensors(tiny);
    auto& q = find_tensor(tensors, "model.layers.0.self_attn.q_proj.weight");
    for (const std::int64_t head : {0, 1}) {  // of KV head 0
        for (const std::int64_t row : {2, 6}) {
            for (std::int64_t c = 0; c < 32; ++c) q.values[static_cast<std::size_t>((head * 8 + row) * 32 + c)] = 0;
        }
    }
    write_model(directory_ / "zero", tiny_config(tiny), tensors);
    const Model model = Model::open(directory_ / "zero");
    CalibrationOptions options;
    options.inputs = Inputs::samples;
    CalibrationStats stats = calibrate(model, random_ids(4), kSeqLen, observer_, options);
    EXPECT_THROW((void)stats.inputs->moment(0), Error);
    add_order(find_rope_strategy("attention").order, model, stats, observer_);
    EXPECT_EQ(ranks_for(find_rope_strategy("attention"), stats).rank(0, 0, 2), 3);
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
