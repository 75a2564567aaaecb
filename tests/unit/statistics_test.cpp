// Where the statistics of a plan come from, and what is said if they cannot.
#include "mha2mla/statistics.hpp"

#include <gtest/gtest.h>

#include <random>

#include "mha2mla/error.hpp"
#include "mha2mla/fingerprint.hpp"
#include "support/temporary.hpp"
#include "support/tiny_model.hpp"

namespace mha2mla::test {
namespace {

StagedPlan plan(const std::string& selection, Factorization factorization = Factorization::joint) {
    StagedPlan stages;
    stages.rope = {selection, 4, 0};
    stages.kv_rank = 2;
    stages.factorization = factorization;
    return stages;
}

class StatisticsOfAPlan : public testing::Test {
protected:
    StatisticsOfAPlan() {
        write_tiny_model(directory_ / "model", {});
        std::mt19937 random(5);
        std::string bytes;
        for (int i = 0; i < 32 * 16; ++i) bytes += {static_cast<char>(random() % 64), '\0'};
        write_text(directory_ / "tokens.u16", bytes);
    }
    [[nodiscard]] StatisticsSource on_tokens() const {
        return {.text = {.tokens = directory_ / "tokens.u16"}, .samples = {.samples = 16, .seq_len = 32}};
    }
    void expect_remedy(Remedy remedy, const StagedPlan& stages, const StatisticsSource& source) {
        try {
            check_statistics(stages, source, model_().config, observer_);
            FAIL() << "nothing is wrong";
        } catch (const Error& error) {
            EXPECT_EQ(error.code(), ErrorCode::usage);
            EXPECT_EQ(error.remedy(), remedy) << error.what();
        }
    }
    [[nodiscard]] Model model_() const { return Model::open(directory_ / "model"); }
    TemporaryDirectory directory_;
    Observer observer_;
};

TEST_F(StatisticsOfAPlan, WhatIsMissingIsSaidWithAWayOut) {
    const auto whitened = plan("uniform", Factorization::whitened);
    expect_remedy(Remedy::give_norms, plan("2-norm"), {});
    expect_remedy(Remedy::give_statistics, plan("attention"), {});
    expect_remedy(Remedy::give_statistics_or_joint, whitened, {});
    EXPECT_NO_THROW(check_statistics(plan("high"), {}, model_().config, observer_));
    expect_remedy(Remedy::give_order, plan("attention"), {.rank_file = "ranks.pth"});
    expect_remedy(Remedy::give_moments, whitened, {.rank_file = "ranks.pth"});
    const auto file = directory_ / "stats";
    save_stats(file, calibrate_on_text(model_(), on_tokens().text, on_tokens().samples, 4, {}, 0, observer_),
               observer_);
    expect_remedy(Remedy::calibrate_with_order, plan("attention"), {.stats = file});
    expect_remedy(Remedy::calibrate_with_moments, whitened, {.stats = file});
    EXPECT_NO_THROW(check_statistics(plan("2-norm"), {.stats = file}, model_().config, observer_));
    EXPECT_THROW((void)make_statistics(model_(), plan("attention"), {}, observer_), Error);
}

TEST_F(StatisticsOfAPlan, AFileOfMomentsIsEnoughForEveryOrder) {
    const Model model = model_();
    const Statistics direct = make_statistics(model, plan("attention"), on_tokens(), observer_);
    EXPECT_EQ(direct.sequences, 16);
    const auto file = directory_ / "stats";
    save_stats(file, calibrate_on_text(model, on_tokens().text, on_tokens().samples, 4, {{}, true}, 0, observer_),
               observer_);
    const Statistics loaded = make_statistics(model, plan("attention"), {.stats = file}, observer_);
    EXPECT_EQ(loaded.ranks->values, direct.ranks->values);
    EXPECT_EQ(loaded.sequences, 0);
}

TEST_F(StatisticsOfAPlan, SharedOnesAreComputedOnceWithWhatAllNeed) {
    const Model model = model_();
    const StagedPlan first = plan("2-norm"), second = plan("attention", Factorization::whitened);
    const auto file_of = [&](const StagedPlan& stages) {
        const Provenance provenance{.ranks_from = describe_statistics(stages, on_tokens(), model.config)};
        return shared_statistics_file(directory_ / "shared", model, stages, on_tokens(),
                                      conversion_fingerprint(model, {stages}, {}, provenance));
    };
    SharedStatistics shared{file_of(first), needed_statistics(first)};
    EXPECT_EQ(shared.file, file_of(second));
    EXPECT_TRUE(file_of(plan("high")).empty());
    shared.needs |= needed_statistics(second);
    EXPECT_FALSE(has_statistics(shared));
    const Statistics of_first = make_statistics(model, first, on_tokens(), observer_, 0, shared);
    EXPECT_TRUE(has_statistics(shared));
    const std::string bytes = read_text(shared.file);
    StatisticsSource gone = on_tokens();
    gone.text.tokens = directory_ / "gone";
    const Statistics of_second = make_statistics(model, second, gone, observer_, 0, {shared.file, {}});
    EXPECT_EQ(read_text(shared.file), bytes);
    EXPECT_NE(of_second.inputs, nullptr);
    EXPECT_EQ(of_second.ranks->values, make_statistics(model, second, on_tokens(), observer_).ranks->values);
    EXPECT_EQ(of_first.ranks->values, make_statistics(model, first, on_tokens(), observer_).ranks->values);
}

}  // namespace
}  // namespace mha2mla::test
