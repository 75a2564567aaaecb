#include "longbench_lines.hpp"

#include <algorithm>

namespace mha2mla {
namespace {

using Json = nlohmann::json;
namespace fs = std::filesystem;

constexpr std::string_view kItemKeys = "; an item needs the keys input, context, answers, all_classes, length, dataset";
constexpr std::string_view kPredictionKeys =
    "; a prediction needs the keys pred, answers, all_classes, and dataset unless the file is named after it "
    "(trec.jsonl)";

std::vector<std::string> read_answers(const Json& line) {
    auto answers = line.at("answers").get<std::vector<std::string>>();
    if (answers.empty()) throw Error(ErrorCode::format, "'answers' is empty; without an answer nothing can be scored");
    return answers;
}

std::vector<std::string> read_classes(const Json& line, const LongbenchTask& task) {
    const Json& value = line.at("all_classes");
    if (value.is_null() && task.metric != LongbenchMetric::classification) return {};
    if (!value.is_array()) {
        throw Error(ErrorCode::format,
                    "'all_classes' is no list of the classes, which " + std::string(task.name) + " is scored by");
    }
    return value.get<std::vector<std::string>>();
}

/// Throws what would end the scoring of any prediction.
void check_answers(const LongbenchTask& task, const std::vector<std::string>& answers) {
    if (task.metric == LongbenchMetric::retrieval) (void)longbench_score({&task, "", answers, {}});
}

LongbenchItem read_item(const Json& line, const LongbenchTask& task) {
    const auto name = line.at("dataset").get<std::string>();
    if (name != task.name) {
        throw Error(ErrorCode::format,
                    "'dataset' is '" + name + "', but the file's name says " + std::string(task.name));
    }
    LongbenchItem item;
    item.context = line.at("context").get<std::string>();
    item.input = line.at("input").get<std::string>();
    item.answers = read_answers(line);
    item.all_classes = read_classes(line, task);
    item.length = line.at("length");
    item.id = line.value("_id", Json());
    check_answers(task, item.answers);
    return item;
}

const LongbenchTask& task_of(const Json& line, const LongbenchTask* named) {
    if (named != nullptr && !line.contains("dataset")) return *named;
    const auto name = line.at("dataset").get<std::string>();
    try {
        return longbench_task(name);
    } catch (const Error& error) {
        throw Error(ErrorCode::format, "'dataset': " + std::string(error.message()));
    }
}

std::string dump(const Json& value) { return value.dump(-1, ' ', false, Json::error_handler_t::replace); }

/// A list as Python's json writes it.
std::string list_text(const std::vector<std::string>& texts) {
    std::string list;
    for (const auto& text : texts) list += (list.empty() ? "" : ", ") + dump(text);
    return "[" + list + "]";
}

const LongbenchTask* task_named_by(const fs::path& file) {
    const std::string name = file.stem().string();
    const auto tasks = longbench_tasks();
    const auto found = std::find_if(tasks.begin(), tasks.end(), [&](const auto& task) { return task.name == name; });
    return found == tasks.end() ? nullptr : &*found;
}

void read_file(const fs::path& file, std::vector<LongbenchPrediction>& predictions) {
    const JsonLines lines(file);
    const LongbenchTask* named = task_named_by(file);
    for (std::size_t i = 0; i < lines.size(); ++i) predictions.push_back(read_prediction(lines, i, named));
}

}  // namespace

fs::path longbench_file(const fs::path& directory, const LongbenchTask& task) {
    return directory / (std::string(task.name) + ".jsonl");
}

LongbenchData::LongbenchData(const fs::path& directory, const LongbenchTask& task)
    : task_(&task), lines_(longbench_file(directory, task)) {
    if (size() == 0) throw Error(ErrorCode::format, longbench_file(directory, task).string() + ": there are no items");
    for (std::size_t i = 0; i < size(); ++i) (void)item(i);
}

LongbenchItem LongbenchData::item(std::size_t index) const {
    return lines_.read(index, kItemKeys, [&](const Json& line) { return read_item(line, *task_); });
}

std::string prediction_line(const LongbenchTask& task, const LongbenchItem& item, const std::string& pred) {
    const bool is_listed = task.metric == LongbenchMetric::classification || !item.all_classes.empty();
    std::string line = R"({"pred": )" + dump(pred) + R"(, "answers": )" + list_text(item.answers) +
                       R"(, "all_classes": )" + (is_listed ? list_text(item.all_classes) : "null") + R"(, "length": )" +
                       dump(item.length) + R"(, "dataset": )" + dump(std::string(task.name));
    if (!item.id.is_null()) line += R"(, "_id": )" + dump(item.id);
    return line + "}\n";
}

LongbenchPrediction read_prediction(const JsonLines& lines, std::size_t index, const LongbenchTask* named) {
    return lines.read(index, kPredictionKeys, [&](const Json& line) {
        LongbenchPrediction prediction;
        prediction.task = &task_of(line, named);
        prediction.pred = line.at("pred").get<std::string>();
        prediction.answers = read_answers(line);
        prediction.all_classes = read_classes(line, *prediction.task);
        check_answers(*prediction.task, prediction.answers);
        return prediction;
    });
}

bool belongs_to(const JsonLines& predictions, std::size_t index, const LongbenchItem& item) {
    return predictions.read(index, kPredictionKeys, [&](const Json& line) {
        return line.at("answers") == item.answers && line.value("length", Json()) == item.length &&
               line.value("_id", Json()) == item.id;
    });
}

std::vector<LongbenchPrediction> read_longbench_predictions(const fs::path& path) {
    std::vector<LongbenchPrediction> predictions;
    std::error_code ignored;
    if (!fs::is_directory(path, ignored)) {
        read_file(path, predictions);
    } else {
        for (const auto& task : longbench_tasks()) {
            const fs::path file = longbench_file(path, task);
            if (fs::exists(file, ignored)) read_file(file, predictions);
        }
    }
    if (predictions.empty()) throw Error(ErrorCode::format, path.string() + ": there are no predictions");
    return predictions;
}

}  // namespace mha2mla
