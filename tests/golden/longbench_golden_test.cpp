// LongBench: scores, prompts, lengths and predictions that others computed.
#include <map>

#include "mha2mla/longbench.hpp"
#include "support/program.hpp"
#include "support/shared.hpp"
#include "support/temporary.hpp"

namespace mha2mla::test {
namespace {

/// Without the limit of Python's recursion, which is no property of the metric.
double expected_score(const nlohmann::json& pair) {
    return pair.value("score_without_recursion_limit", pair.at("score").get<double>());
}

TEST(LongbenchGolden, ScoresEqualThoseOfItsOwnCode) {
    const std::string name = "golden/longbench/longbench_metrics.json";
    MHA2MLA_NEEDS_SHARED(name);
    const auto pairs = read_json(shared(name));
    ASSERT_GE(pairs.size(), 600U);
    const TemporaryDirectory directory;
    std::string lines;
    for (const auto& pair : pairs) {
        const nlohmann::json line = {{"dataset", pair.at("dataset")},
                                     {"pred", pair.at("prediction")},
                                     {"answers", pair.at("references")},
                                     {"all_classes", pair.at("all_classes")}};
        lines += line.dump() + "\n";
    }
    write_text(directory / "predictions.jsonl", lines);
    const auto result = run_program({"eval", "--longbench-score", directory / "predictions.jsonl", "--json"});
    ASSERT_EQ(result.exit_code, 0) << result.err;
    const auto scores = nlohmann::json::parse(result.out);
    ASSERT_EQ(scores.at("scores").size(), pairs.size());
    std::map<std::string, std::vector<double>> of_tasks;
    for (std::size_t i = 0; i < pairs.size(); ++i) {
        EXPECT_NEAR(scores.at("scores")[i].get<double>(), expected_score(pairs[i]), 1e-9) << pairs[i].dump();
        of_tasks[pairs[i].at("dataset")].push_back(expected_score(pairs[i]));
    }
    ASSERT_EQ(scores.at("tasks").size(), of_tasks.size());
    double sum = 0;
    for (const auto& [task, values] : of_tasks) {
        double mean = 0;
        for (const double value : values) mean += value / static_cast<double>(values.size());
        EXPECT_NEAR(scores.at("tasks").at(task).at("mean").get<double>(), mean, 1e-9) << task;
        EXPECT_NEAR(scores.at("tasks").at(task).at("score").get<double>(), 100 * mean, 0.005001) << task;
        sum += 100 * mean;
    }
    EXPECT_NEAR(scores.at("average").get<double>(), sum / static_cast<double>(of_tasks.size()), 1e-9);
}

TEST(LongbenchGolden, TasksAreThoseOfItsFiles) {
    MHA2MLA_NEEDS_SHARED("golden/longbench/longbench_settings.json");
    const auto settings = read_json(shared("golden/longbench/longbench_settings.json")).at("tasks");
    const auto prompts = read_json(shared("golden/longbench/longbench_prompts.json")).at("prompts");
    std::size_t run = 0;
    for (const auto& task : longbench_tasks()) {
        if (task.prompt.empty()) continue;
        ++run;
        SCOPED_TRACE(task.name);
        const auto& row = settings.at(std::string(task.name));
        EXPECT_EQ(task.group, row.at("group").get<std::string>());
        EXPECT_EQ(kLongbenchMetrics.at(static_cast<std::size_t>(task.metric)).name,
                  row.at("metric").get<std::string>());
        EXPECT_EQ(task.max_new_tokens, row.at("max_new_tokens").get<std::int64_t>());
        EXPECT_EQ(task.chat, !row.at("no_chat_prompt").get<bool>());
        EXPECT_EQ(task.first_line_only, row.at("first_line_only").get<bool>());
        EXPECT_EQ(task.prompt, prompts.at(std::string(task.name)).get<std::string>());
    }
    EXPECT_EQ(run, settings.size());
}

/// transformers generated what is compared, by the rules of both programs, see make_predictions.py.
class Protocol : public testing::TestWithParam<const char*> {};
TEST_P(Protocol, FilesOfPredictionsEqualThoseOfTransformers) {
    const TemporaryDirectory directory;
    const auto result =
        run_program({"eval", example("kjv-1.8M"), "--longbench", example("longbench"), "--predictions",
                     directory / "pred", "--protocol", GetParam(), "--context", "300", "--kv-cache", "f32", "--json"});
    ASSERT_EQ(result.exit_code, 0) << result.err;
    const auto json = nlohmann::json::parse(result.out);
    EXPECT_EQ(json.at("computed"), 15);
    EXPECT_GT(json.at("truncated"), 5);
    EXPECT_LT(json.at("truncated"), 15);
    std::size_t files = 0;
    for (const auto& entry : std::filesystem::directory_iterator(shared("golden/longbench") / GetParam())) {
        EXPECT_EQ(read_text(directory / "pred" / entry.path().filename()), read_text(entry.path())) << entry.path();
        ++files;
    }
    EXPECT_EQ(files, 5U);
}
INSTANTIATE_TEST_SUITE_P(LongbenchGolden, Protocol, testing::Values("longbench", "mha2mla"));

}  // namespace
}  // namespace mha2mla::test
