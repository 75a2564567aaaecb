#include "mha2mla/longbench.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "../support/file_operations.hpp"
#include "../support/json_file.hpp"
#include "longbench_lines.hpp"
#include "longbench_prompt.hpp"
#include "mha2mla/atomic_file.hpp"
#include "mha2mla/error.hpp"
#include "mha2mla/fingerprint.hpp"
#include "mha2mla/generate.hpp"
#include "mha2mla/version.hpp"
#include "prediction_file.hpp"

namespace mha2mla {
namespace {

namespace fs = std::filesystem;
using Settings = nlohmann::ordered_json;

/// Passes on all but the progress of single items.
class Quiet final : public Observer {
public:
    explicit Quiet(Observer& observer) : observer_(&observer) {}
    void warn(const std::string& message) override { observer_->warn(message); }
    [[nodiscard]] bool cancelled() const override { return observer_->cancelled(); }

private:
    Observer* observer_;
};

/// Everything that predictions depend on. Its `data` has the hash of each data set that is there, also of tasks that
/// are not run now: another run may add their predictions.
Settings settings_of(const Model& model, const fs::path& tokenizer, const LongbenchOptions& options) {
    Settings settings;
    settings["version"] = version();
    settings["model"] = base_model(model);
    settings["fingerprint"] = text_hash(source_fingerprint(model).dump());
    settings["tokenizer"] = file_hash(tokenizer);
    settings["protocol"] = kLongbenchProtocols.at(static_cast<std::size_t>(options.protocol)).name;
    settings["max-tokens"] = options.max_tokens ? Settings(*options.max_tokens) : Settings("default");
    settings["chat"] = options.chat;
    settings["kv-cache"] = row_of(options.cache.format).name;
    if (row_of(options.cache.format).quantizer != Quantizer::none) {
        settings["kv-group"] = options.cache.group_size;
        settings["kv-window"] = options.cache.window;
    }
    settings["data"] = Settings::object();
    for (const auto& task : longbench_tasks()) {
        const fs::path file = longbench_file(options.data, task);
        if (files::exists(file)) settings["data"][std::string(task.name)] = file_hash(file);
    }
    return settings;
}

std::vector<const LongbenchTask*> tasks_with_data(const LongbenchOptions& options) {
    if (!options.tasks.empty()) return options.tasks;
    std::vector<const LongbenchTask*> tasks;
    for (const auto& task : longbench_tasks()) {
        if (!task.prompt.empty() && files::exists(longbench_file(options.data, task))) tasks.push_back(&task);
    }
    if (!tasks.empty()) return tasks;
    throw Error(ErrorCode::io,
                options.data.string() +
                    ": there is no data set in it; unpack LongBench's data.zip, which has hotpotqa.jsonl "
                    "and others in its folder data");
}

/// What the predictions of a directory were made with; null if nothing that can be read says so.
Settings settings_at(const fs::path& file) {
    if (!files::exists(file)) return nullptr;
    try {
        return read_json_file<Settings>(file);
    } catch (const Error& error) {
        if (error.code() != ErrorCode::format) throw;
        return nullptr;
    }
}

/// The settings with the data sets that only the others have.
Settings with_data_of(Settings settings, const Settings& others) {
    const Settings data = others.is_object() ? others.value("data", Settings()) : Settings();
    Settings all = data.is_object() ? data : Settings::object();
    if (settings.is_object()) {
        all.update(settings.value("data", Settings::object()));
        settings["data"] = all;
    }
    return settings;
}

/// Checks that the directory's predictions were made with these settings, or makes it one without predictions.
/// @return the lock by which they stay so
std::unique_ptr<PredictionsLock> prepare_directory(const LongbenchOptions& options, const Settings& settings) {
    const fs::path& directory = options.predictions;
    std::error_code error;
    if (fs::equivalent(options.data, directory, error)) {
        throw Error(ErrorCode::usage, directory.string() +
                                          ": holds the data, whose files have the names of those for predictions; "
                                          "choose another directory for the predictions");
    }
    fs::create_directories(directory, error);
    if (error) throw Error(ErrorCode::io, directory.string() + ": cannot create directory: " + error.message());
    const fs::path file = directory / "longbench-settings.json";
    auto lock = std::make_unique<PredictionsLock>(directory);
    if (const Settings was = settings_at(file); with_data_of(settings, was) == was) return lock;
    lock->take_alone();
    const Settings was = settings_at(file);  // again: another process may have had it alone
    const Settings both = with_data_of(settings, was);
    std::vector<fs::path> earlier;
    for (const auto& task : longbench_tasks()) {
        if (files::exists(longbench_file(directory, task))) earlier.push_back(longbench_file(directory, task));
    }
    const bool has_more_data = was.is_object() && differences(both, with_data_of(was, settings)).empty();
    if (has_more_data) earlier.clear();
    if (!earlier.empty() && !options.overwrite) {
        throw Error(
            ErrorCode::usage,
            directory.string() + ": has predictions that were made " +
                (was.is_object() ? "with other settings: " + differences(was, settings) : "by another program") +
                "; they would be removed, those of all tasks",
            Remedy::overwrite);
    }
    for (const auto& path : earlier) {
        if (files::remove(path) != 0) throw Error(ErrorCode::io, path.string() + ": cannot remove it");
    }
    write_file_atomically(file, (has_more_data ? both : settings).dump(2) + "\n");
    lock->share();
    return lock;
}

/// A task whose data have been checked.
struct Job {
    LongbenchData data;
    std::size_t items;                          // that are to have predictions
    std::unique_ptr<PredictionFile> file;       // locked
    std::vector<LongbenchPrediction> finished;  // the first of the items
};

Job prepare_job(const LongbenchTask& task, const LongbenchOptions& options) {
    if (task.prompt.empty()) {
        throw Error(ErrorCode::usage, std::string(task.name) + " can be scored, but not run: it is not in English");
    }
    Job job{LongbenchData(options.data, task), 0, nullptr, {}};
    job.items = job.data.size();
    if (options.max_items) job.items = std::min(job.items, static_cast<std::size_t>(*options.max_items));
    return job;
}

void read_finished(Job& job, const LongbenchOptions& options) {
    using Start = PredictionFile::Start;
    const LongbenchTask& task = job.data.task();
    job.file = std::make_unique<PredictionFile>(longbench_file(options.predictions, task),
                                                options.overwrite ? Start::empty : Start::resume);
    const JsonLines lines(job.file->path());
    for (std::size_t i = 0; i < lines.size(); ++i) {
        if (i >= job.data.size() || !belongs_to(lines, i, job.data.item(i))) {
            throw Error(ErrorCode::usage,
                        lines.at(i, "this is no prediction for the item at this place of the data").what(),
                        Remedy::overwrite);
        }
        if (i < job.items) job.finished.push_back(read_prediction(lines, i, &task));
    }
}

}  // namespace

LongbenchRun run_longbench(const Model& model, const LongbenchOptions& options, Observer& observer) {
    const fs::path tokenizer_file =
        options.tokenizer.empty() ? model.checkpoint.directory() / "tokenizer.json" : options.tokenizer;
    const Tokenizer tokenizer = Tokenizer::load(tokenizer_file);
    std::vector<Job> jobs;
    std::int64_t total = 0;
    for (const LongbenchTask* task : tasks_with_data(options)) {
        jobs.push_back(prepare_job(*task, options));
        total += static_cast<std::int64_t>(jobs.back().items);
        check_lengths(*task, model.config, options, observer);
    }
    const auto lock = prepare_directory(options, settings_of(model, tokenizer_file, options));
    for (Job& job : jobs) read_finished(job, options);

    Quiet quiet(observer);
    const PromptMaker prompts(model, tokenizer, options);
    LongbenchRun run;
    for (Job& job : jobs) {
        const LongbenchTask& task = job.data.task();
        for (auto& prediction : job.finished) run.predictions.push_back(std::move(prediction));
        for (std::size_t i = job.finished.size(); i < job.items; ++i) {
            observer.step("LongBench", static_cast<std::int64_t>(run.predictions.size()), total);
            const LongbenchItem item = job.data.item(i);
            try {
                const LongbenchPrompt prompt = prompts.make(task, item);
                run.truncated += prompt.truncated ? 1 : 0;
                const std::string pred = prompts.predict(task, prompt, quiet);
                job.file->append(prediction_line(task, item, pred));
                run.predictions.push_back({&task, pred, item.answers, item.all_classes});
            } catch (const Error& error) {
                const bool is_of_item = error.code() == ErrorCode::format || error.code() == ErrorCode::unsupported;
                if (!is_of_item) throw;
                throw Error(error.code(), job.data.at(i, std::string(error.message())).what(), error.remedy());
            }
            ++run.computed;
        }
        job.file.reset();
    }
    return run;
}

}  // namespace mha2mla
