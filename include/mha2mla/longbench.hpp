#pragma once
/// LongBench (Bai et al., 2023): the 16 English and code tasks of MHA2MLA's table 6. Their prompts, lengths and
/// metrics, the score of predictions, and a run that continues where it was interrupted.

#include <array>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "mha2mla/kv_cache.hpp"
#include "mha2mla/observer.hpp"
#include "mha2mla/table.hpp"

namespace mha2mla {

enum class LongbenchMetric : std::uint8_t { qa_f1, rouge_l, classification, retrieval, count, code_similarity };
struct LongbenchMetricRow {
    LongbenchMetric metric;
    std::string_view name;  // that of the function in LongBench's metrics.py
};
inline constexpr std::array<LongbenchMetricRow, 6> kLongbenchMetrics = {{
    {LongbenchMetric::qa_f1, "qa_f1_score"},
    {LongbenchMetric::rouge_l, "rouge_score"},
    {LongbenchMetric::classification, "classification_score"},
    {LongbenchMetric::retrieval, "retrieval_score"},
    {LongbenchMetric::count, "count_score"},
    {LongbenchMetric::code_similarity, "code_sim_score"},
}};
static_assert(in_order(kLongbenchMetrics, &LongbenchMetricRow::metric));

/// One row per data set.
struct LongbenchTask {
    std::string_view name;
    std::string_view group;  // of the paper's table
    LongbenchMetric metric;
    std::int64_t max_new_tokens;
    bool chat;                // whether a chat model's own prompt is put around this one
    bool first_line_only;     // whether only the first line of a prediction counts
    bool newline_ends;        // whether a line break ends a prediction, after at least one token
    std::string_view prompt;  // {context} and {input} stand for the item's; empty: scored, but not run
};
/// All tasks: the 16 in the order of LongBench's table, then those that can only be scored.
[[nodiscard]] std::span<const LongbenchTask> longbench_tasks();
/// The task with this name. @throws Error{usage} listing the names.
[[nodiscard]] const LongbenchTask& longbench_task(std::string_view name);

/// A line of a file of predictions.
struct LongbenchPrediction {
    const LongbenchTask* task = nullptr;
    std::string pred;
    std::vector<std::string> answers;
    std::vector<std::string> all_classes;  // empty where the task has none
};
/// The score of a prediction, 0 to 1: the largest of its answers, equal to what LongBench's eval.py computes.
/// @throws Error{format} if an answer of passage_retrieval_en names no paragraph, or what is to be compared is so long
/// that it would take more than seconds.
[[nodiscard]] double longbench_score(const LongbenchPrediction& prediction);

/// Reads a JSON Lines file with the keys pred, answers, all_classes and, where the file's name is not the task's
/// ("trec.jsonl"), dataset; or all such files of a directory that have a task's name.
/// @throws Error{io}, Error{format} naming file and line.
[[nodiscard]] std::vector<LongbenchPrediction> read_longbench_predictions(const std::filesystem::path& path);

struct LongbenchTaskScore {
    const LongbenchTask* task = nullptr;
    std::int64_t samples = 0;
    double sum = 0;  // of the scores of its predictions
    [[nodiscard]] double mean() const { return sum / static_cast<double>(samples); }
    /// As LongBench reports it: in percent, rounded to two decimals.
    [[nodiscard]] double percent() const;
};
struct LongbenchScores {
    std::vector<double> scores;             // of each prediction
    std::vector<LongbenchTaskScore> tasks;  // that have predictions, in the order of longbench_tasks()
    /// In percent: the mean of the tasks' means, each of which counts the same.
    [[nodiscard]] double average() const;
};
/// @throws Error{usage} if there is no prediction; Error{format} for one that is too long to score; Error{interrupted}.
[[nodiscard]] LongbenchScores score_longbench(std::span<const LongbenchPrediction> predictions,
                                              const Observer& observer = Observer());

/// Two programs that run LongBench differently.
enum class LongbenchProtocol : std::uint8_t {
    longbench,  ///< LongBench's pred.py
    mha2mla,    ///< the evaluation of MHA2MLA, which made the paper's table 6
};
struct LongbenchProtocolRow {
    LongbenchProtocol protocol;
    std::string_view name, what;
};
inline constexpr std::array<LongbenchProtocolRow, 2> kLongbenchProtocols = {{
    {LongbenchProtocol::longbench, "longbench", "that of LongBench's pred.py"},
    {LongbenchProtocol::mha2mla, "mha2mla", "that of the paper's table"},
}};
static_assert(in_order(kLongbenchProtocols, &LongbenchProtocolRow::protocol));

struct LongbenchOptions {
    std::filesystem::path data;               // directory of LongBench's JSON Lines, <task>.jsonl
    std::filesystem::path predictions;        // directory where <task>.jsonl are written, and longbench-settings.json
    std::filesystem::path tokenizer;          // tokenizer.json; empty: the model's
    std::vector<const LongbenchTask*> tasks;  // empty: all whose data are there
    LongbenchProtocol protocol = LongbenchProtocol::longbench;
    KvCacheOptions cache;
    /// `longbench`: most tokens of a prompt; default: the model's positions less the task's new tokens.
    /// `mha2mla`: most tokens of prompt and new tokens together; default: 2048.
    std::optional<std::int64_t> max_tokens;
    std::optional<std::int64_t> max_items;  // of each task
    std::string chat;                       // put around prompts of tasks with `chat`, {prompt} in it; empty: nothing
    bool overwrite = false;                 // computes predictions that are there again
};
struct LongbenchRun {
    std::vector<LongbenchPrediction> predictions;  // of all items
    std::int64_t computed = 0;                     // in this run; the others were there
    std::int64_t truncated = 0;                    // of the computed ones: those whose prompts were too long
};
/// Computes what is missing of the predictions. All data are checked first. After each item its line is on disk, as
/// LongBench's pred.py writes it and with `dataset` and `_id`; an interrupted run continues there.
/// @throws Error{usage} if predictions are there that were made with other settings; Error{io}; Error{format} naming
/// file
///         and line; Error{interrupted}.
[[nodiscard]] LongbenchRun run_longbench(const Model& model, const LongbenchOptions& options, Observer& observer);

}  // namespace mha2mla
