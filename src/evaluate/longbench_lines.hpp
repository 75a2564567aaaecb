#pragma once
/// Lines of LongBench's files: items of its data sets, and predictions.

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "json_lines.hpp"
#include "mha2mla/longbench.hpp"

namespace mha2mla {

/// "directory/trec.jsonl"
[[nodiscard]] std::filesystem::path longbench_file(const std::filesystem::path& directory, const LongbenchTask& task);

// NOLINTNEXTLINE(bugprone-exception-escape): moving JSON may throw by its type, but does not
struct LongbenchItem {
    std::string context, input;
    std::vector<std::string> answers, all_classes;
    nlohmann::json length, id;  // as they stand in the line; `id` may be absent (null)
};

/// The items of a task's data set. Each is read when it is asked for, because their texts are long.
class LongbenchData {
public:
    /// Checks all lines. @throws Error{io}, Error{format} naming file and line.
    LongbenchData(const std::filesystem::path& directory, const LongbenchTask& task);
    [[nodiscard]] const LongbenchTask& task() const { return *task_; }
    [[nodiscard]] std::size_t size() const { return lines_.size(); }
    [[nodiscard]] LongbenchItem item(std::size_t index) const;
    /// An error about an item, naming file and line.
    [[nodiscard]] Error at(std::size_t index, const std::string& message) const { return lines_.at(index, message); }

private:
    const LongbenchTask* task_;
    JsonLines lines_;
};

/// The line of a prediction, with the separators of Python's json.
[[nodiscard]] std::string prediction_line(const LongbenchTask& task, const LongbenchItem& item,
                                          const std::string& pred);
/// @param named the task that the file's name says, for lines without `dataset`, or null.
[[nodiscard]] LongbenchPrediction read_prediction(const JsonLines& lines, std::size_t index,
                                                  const LongbenchTask* named);
/// Whether a prediction's line is of this item.
[[nodiscard]] bool belongs_to(const JsonLines& predictions, std::size_t index, const LongbenchItem& item);

}  // namespace mha2mla
