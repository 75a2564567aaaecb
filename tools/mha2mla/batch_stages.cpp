#include "batch_stages.hpp"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "mha2mla/error.hpp"
#include "mha2mla/fingerprint.hpp"
#include "recipe_settings.hpp"

namespace mha2mla::tool {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

const RecipeSettings& known_settings() {
    static const RecipeSettings settings = recipe_settings();
    return settings;
}

bool is_path(const std::vector<RecipeSetting>& known, const std::string& name) {
    const auto found = std::ranges::find(known, name, &RecipeSetting::name);
    return found != known.end() && found->is_path;
}

void check_paths(const BatchJob& job, const JobSettings& settings, const std::vector<RecipeSetting>& known) {
    for (const auto& [name, value] : settings.items()) {
        if (!is_path(known, name)) continue;
        for (const auto& path : value.is_array() ? value : Json::array({value})) {
            if (fs::exists(fs::path(path.get<std::string>()))) continue;
            throw Error(ErrorCode::io, "job '" + job.name + "', " + name + ": " + path.get<std::string>() +
                                           ": there is no such file or directory");
        }
    }
}

/// Hash of a file, or of the names and hashes of a directory's files.
Json content_of(const fs::path& path) {
    if (!fs::is_directory(path)) return file_hash(path);
    std::vector<fs::path> files;
    for (const auto& entry : fs::directory_iterator(path)) {
        if (entry.is_regular_file()) files.push_back(entry.path());
    }
    std::ranges::sort(files);
    Json content;
    for (const auto& file : files) content[file.filename().string()] = file_hash(file);
    return content;
}

/// What the result of an evaluation depends on. @param model its source_fingerprint()
Json fingerprint_of(const Json& model, const BatchEvaluation& evaluation) {
    Json json = {{"model", model}, {"settings", evaluation.settings}};
    for (auto& [name, value] : json["settings"].items()) {
        if (is_path(known_settings().evaluate, name)) value = content_of(value.get<std::string>());
    }
    return json;
}

fs::path result_file(const fs::path& directory, const BatchJob& job, const BatchEvaluation& evaluation) {
    return directory / job.name / (evaluation.name + ".json");
}

/// Before the work for it. @throws Error if it cannot be written
void check_result_file(const fs::path& file) {
    constexpr std::size_t kLongestName = 240;  // file systems have 255 bytes, some of which are for a temporary name
    if (file.filename().string().size() > kLongestName) {
        throw Error(ErrorCode::usage, "the evaluation's name is too long for a file: " + file.filename().string());
    }
    for (fs::path place = file.parent_path(); place.has_filename(); place = place.parent_path()) {
        std::error_code error;
        const fs::file_status status = fs::status(place, error);
        if (fs::exists(status) && !fs::is_directory(status)) {
            throw Error(ErrorCode::io, "cannot write " + file.string() + ": " + place.string() + " is no directory");
        }
    }
    std::error_code error;
    const fs::file_status status = fs::status(file, error);
    if (!fs::exists(status) || fs::is_regular_file(status)) return;
    throw Error(ErrorCode::io, "cannot write " + file.string() + ": it is no file, and would be replaced by one");
}

/// The number of a result that a table shows.
struct Metric {
    std::string name;
    Json value;
};
/// Nothing for what no evaluation wrote.
std::optional<Metric> metric_of(const Json& result) {
    for (const auto& [name, place] :
         {std::pair{"nll", "/nll"}, std::pair{"accuracy", "/normalized/accuracy"}, std::pair{"average", "/average"}}) {
        const Json::json_pointer pointer(place);
        if (result.contains(pointer) && result.at(pointer).is_number()) return Metric{name, result.at(pointer)};
    }
    return std::nullopt;
}

Json summary_of(const FinetuneReport& report, const fs::path& output) {
    Json json = {{"output", output.string()}, {"steps", report.steps}, {"best_step", report.best_step}};
    if (report.nll_before) json["nll_before"] = *report.nll_before;
    if (report.nll_after) json["nll_after"] = *report.nll_after;
    return json;
}

Json evaluate_job(const BatchJob& job, const BatchEvaluation& evaluation, const fs::path& predictions, bool overwrite,
                  Context& context) {
    EvalFlags flags = eval_flags_of(job, evaluation);
    if (flags.longbench.runs()) {
        flags.longbench.predictions = predictions;
        flags.longbench.overwrite = overwrite;
    }
    Json result;
    flags.json = {true, &result};
    run_evaluation(flags, context);
    return result;
}

}  // namespace

void check_stages(const BatchJob& job, const fs::path& directory, bool overwrite, Context& context) {
    if (!job.finetune.is_null()) {
        const FinetuneFlags flags = finetune_flags_of(job);
        check_training_flags(flags);
        check_paths(job, job.finetune, known_settings().finetune);
        check_training_places(flags);
        if (!flags.teacher.empty()) (void)open_model(flags.teacher, context.ignore_unused, context);
        if (!overwrite && !holds_training(job.finetuned())) check_training_destination(job.finetuned());
    }
    for (const auto& evaluation : job.evaluations) {
        const EvalFlags flags = eval_flags_of(job, evaluation);
        check_evaluation_flags(flags);
        if (!flags.tokens.given() && flags.choices.empty() && !flags.longbench.given()) {
            throw Error(ErrorCode::usage, "job '" + job.name + "', evaluation " + evaluation.name +
                                              ": nothing to evaluate on; give text, tokens, choices or longbench");
        }
        check_paths(job, evaluation.settings, known_settings().evaluate);
        check_result_file(result_file(directory, job, evaluation));
    }
}

std::string stages_text(const BatchJob& job) {
    const std::string trained = job.finetune.is_null() ? "" : "fine-tuned";
    const std::size_t count = job.evaluations.size();
    if (count == 0) return trained.empty() ? "" : "then " + trained;
    return "then " + (trained.empty() ? "" : trained + " and ") + "evaluated" +
           (count == 1 ? "" : " " + std::to_string(count) + " times");
}

StagesReport run_stages(const BatchJob& job, const fs::path& directory, bool overwrite, Context& context) {
    StagesReport report;
    if (!job.finetune.is_null()) {
        FinetuneFlags flags = finetune_flags_of(job);
        flags.run.resume = true;
        flags.run.overwrite = overwrite;
        const FinetuneReport trained = run_training(flags, context).value();
        report.worked = !trained.already_finished;
        report.finetuned = summary_of(trained, flags.output);
    }
    if (job.evaluations.empty()) return report;
    const Json model = source_fingerprint(open_model(job.result(), context.ignore_unused, context));
    for (const auto& evaluation : job.evaluations) {
        const fs::path file = result_file(directory, job, evaluation);
        const Json fingerprint = fingerprint_of(model, evaluation);
        Json result = saved_evaluation(file, fingerprint);
        if (!metric_of(result)) {
            spdlog::info("evaluation {} of {}", evaluation.name, job.result().string());
            result = evaluate_job(job, evaluation, directory / job.name / evaluation.name, overwrite, context);
            save_evaluation(file, fingerprint, result);
            report.worked = true;
        }
        if (const auto metric = metric_of(result)) {
            report.evaluations[evaluation.name] = {{metric->name, metric->value}, {"file", file.string()}};
        }
    }
    return report;
}

}  // namespace mha2mla::tool
