// The text of the status line for a given width, and the word that an error suggests.
#include "mha2mla/progress_text.hpp"

#include <gtest/gtest.h>

#include "mha2mla/suggestion.hpp"

namespace mha2mla::test {
namespace {

using tool::Stage;

Stage stage(const char* name, std::int64_t done, std::int64_t total) { return {name, done, total, 0, {}}; }
const Stage::Clock::time_point kTenSecondsLater = Stage::Clock::time_point() + std::chrono::seconds(10);

TEST(ProgressText, NeverExceedsItsColumnsAndAlwaysSaysSomething) {
    const std::vector<Stage> stages = {stage("singular values", 3, 32), stage("copy", 123456, 200000)};
    for (std::size_t columns = 1; columns < 200; ++columns) {
        const std::string line = tool::progress_line(stages, kTenSecondsLater, columns);
        EXPECT_LE(line.size(), columns);
        EXPECT_FALSE(line.empty());
    }
}

TEST(ProgressText, TwentyColumnsHoldBothStages) {
    const std::vector<Stage> both = {stage("convert", 8, 32), stage("copy", 30, 40)};
    EXPECT_EQ(tool::progress_line(both, kTenSecondsLater, 19), "25%  75%");
    EXPECT_EQ(tool::progress_line({both.data(), 1}, kTenSecondsLater, 19), "convert 25% 0:30");
    EXPECT_EQ(tool::progress_line({both.data(), 1}, kTenSecondsLater, 79),
              "convert [=====>              ] 25% 8/32 1.2 s each ETA 0:30");
}

TEST(ProgressText, RateCountsOnlyWhatThisRunDid) {
    Stage resumed = stage("convert", 20, 40);
    resumed.first = 10;
    EXPECT_EQ(tool::progress_sentence(resumed, kTenSecondsLater), "20 of 40 (50%), 1.0/s, 0:20 left");
    EXPECT_EQ(tool::progress_sentence(stage("convert", 0, 40), kTenSecondsLater), "0 of 40 (0%)");
}

TEST(ProgressText, DurationsReadAsPeopleWriteThem) {
    EXPECT_EQ(tool::duration_text(0.2), "0:01");
    EXPECT_EQ(tool::duration_text(59), "0:59");
    EXPECT_EQ(tool::duration_text(3600 + 62), "1:01:02");
    EXPECT_EQ(tool::duration_text(3 * 86400 + 4 * 3600), "3 d 4 h");
}

TEST(Suggestion, NearestWordOrNone) {
    const std::vector<std::string> words = {"--text", "--tokens", "--rope-dim", "--kv-rank"};
    EXPECT_EQ(did_you_mean("--tekst", words), "; did you mean '--text'?");
    EXPECT_EQ(did_you_mean("--rope-dmi", words), "; did you mean '--rope-dim'?");
    EXPECT_EQ(did_you_mean("-kv-rank", words), "; did you mean '--kv-rank'?");
    EXPECT_EQ(did_you_mean("--kv", words), "; did you mean '--kv-rank'?");
    EXPECT_EQ(did_you_mean("--frobnicate", words), "");
    EXPECT_EQ(did_you_mean(std::string(100000, 'x'), words), "");
}

}  // namespace
}  // namespace mha2mla::test
