#include <algorithm>
#include <chrono>
#include <cmath>
#include <fstream>
#include <optional>

#include "../convert/journal.hpp"
#include "../support/file_operations.hpp"
#include "../support/hash.hpp"
#include "../support/json_file.hpp"
#include "mha2mla/atomic_file.hpp"
#include "mha2mla/checkpoint_writer.hpp"
#include "mha2mla/error.hpp"
#include "mha2mla/evaluate.hpp"
#include "mha2mla/finetune.hpp"
#include "mha2mla/fingerprint.hpp"
#include "training_log.hpp"
#include "written_model.hpp"

namespace mha2mla {
namespace fs = std::filesystem;
namespace {

using Json = nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;

// Of an unfinished run, in its destination: what it is, its state and log, and the weights of the best evaluation
// where it may end before its last step.
constexpr std::string_view kRunFile = "mha2mla.training-run.json", kRunLog = "mha2mla.training-run.jsonl",
                           kRunState = "mha2mla.training-run.safetensors",
                           kBestState = "mha2mla.training-best.safetensors";

Json options_json(const FinetuneOptions& options) {
    const auto name = [](const auto& rows, auto value) { return rows.at(static_cast<std::size_t>(value)).name; };
    const RateSchedule& schedule = options.schedule;
    Json json = {{"train", name(kTrainedParts, options.part)},
                 {"next_token_weight", options.loss.next_token},
                 {"teacher_weight", options.loss.teacher},
                 {"hidden_weight", options.loss.hidden},
                 {"learning_rate", options.rate},
                 {"lr_schedule", name(kRateDecays, schedule.decay)},
                 {"warmup_steps", schedule.warmup},
                 {"decay_start", schedule.decay_start},
                 {"decay_steps", schedule.decay_steps},
                 {"lr_floor", schedule.floor},
                 {"betas", {options.beta1, options.beta2}},
                 {"eps", options.eps},
                 {"weight_decay", options.weight_decay},
                 {"clip", options.clip},
                 {"moments", options.bf16_moments ? "bf16" : "f32"},
                 {"steps", options.steps},
                 {"batch", options.batch},
                 {"micro_batch", options.micro_batch},
                 {"seq_len", options.seq_len},
                 {"shuffle", options.shuffle},
                 {"seed", options.seed}};
    if (options.separate_documents) json["separate_documents"] = true;
    return json;
}

template <typename T>
std::string hash_of_all(const std::vector<T>& values) {
    return hash_of(std::as_bytes(std::span(values)));
}

/// All that the bytes of the output depend on.
Json fingerprint_of(const Model& model, const Model* teacher, const TrainingText& text, const FinetuneOptions& options,
                    const FinetuneRun& run) {
    Json json = {{"source", source_fingerprint(model)},
                 {"teacher", teacher != nullptr ? source_fingerprint(*teacher) : Json(nullptr)},
                 {"options", options_json(options)},
                 {"text", {hash_of_all(text.ids), hash_of_all(text.starts)}}};
    json["evaluation"] = {hash_of_all(run.evaluation), run.eval_every, run.patience};
    json["dtype"] = run.dtype ? Json(dtype_name(*run.dtype)) : Json(nullptr);
    return json;
}

/// A JSON file; null if there is none that can be read.
Json json_at(const fs::path& file) {
    std::error_code ignored;
    if (!fs::exists(file, ignored)) return nullptr;
    try {
        return read_json_file<Json>(file);
    } catch (const Error&) {
        return nullptr;
    }
}

FinetuneReport report_of(const Json& result) {
    FinetuneReport report;
    const auto number = [&](const char* key) -> std::optional<double> {
        const auto found = result.find(key);
        return found != result.end() && found->is_number() ? std::optional(found->get<double>()) : std::nullopt;
    };
    report.steps = static_cast<std::int64_t>(number("steps").value_or(0));
    report.tokens = static_cast<std::int64_t>(number("tokens").value_or(0));
    report.best_step = static_cast<std::int64_t>(number("best_step").value_or(0));
    report.nll_before = number("nll_before");
    report.nll_after = number("nll_after");
    return report;
}

/// One run, from its destination to its output.
class Run {
public:
    Run(const Model& model, const Model* teacher, const TrainingText& text, const FinetuneOptions& options,
        const FinetuneRun& asked, Observer& observer)
        : model_(model),
          options_(options),
          asked_(asked),
          observer_(observer),
          tuner_(model, teacher, text, options),
          log_(asked.destination / kRunLog) {}

    /// Goes on with what an earlier run left, or begins.
    void begin(const Json& fingerprint, bool resume) {
        if (resume && restored()) return;
        clear();  // the state of another run would be taken for this one's
        write_file_atomically(asked_.destination / kRunFile, Json{{"fingerprint", fingerprint}}.dump(1) + "\n");
        log_.begin();
    }

    void train(const std::function<void(const StepReport&)>& report) {
        auto last = Clock::now();
        std::int64_t saved_at = tuner_.steps_done();
        try {
            for (;;) {
                const std::int64_t done = tuner_.steps_done();
                if (evaluation_due()) evaluate_now();
                if (done == options_.steps || out_of_patience()) return;
                const std::chrono::duration<double> since = Clock::now() - last;
                const bool due =
                    asked_.save_every > 0 ? done % asked_.save_every == 0 : since.count() > asked_.save_seconds;
                if (due && done != saved_at) {
                    save();
                    last = Clock::now();
                    saved_at = done;
                }
                observer_.step("train", done, options_.steps);
                const StepReport step = tuner_.step();
                log_.add(step);
                report(step);
            }
        } catch (const Error& error) {
            if (error.code() != ErrorCode::interrupted) throw;
            if (tuner_.steps_done() != saved_at || !saved()) save();
            throw Error(ErrorCode::interrupted,
                        "interrupted after step " + std::to_string(tuner_.steps_done()) + ", which is saved",
                        Remedy::resume);
        }
    }

    FinetuneReport publish(const Json& fingerprint) {
        FinetuneReport report;
        report.steps = tuner_.steps_done();
        report.tokens = report.steps * options_.batch * options_.seq_len;
        report.best_step = report.steps;
        const std::vector<Evaluated>& evaluations = log_.evaluations();
        if (!evaluations.empty()) {
            report.nll_before = evaluations.front().nll;
            report.nll_after = evaluations.back().nll;
        }
        if (asked_.patience > 0 && !evaluations.empty() && best().step != report.steps) {
            if (!tuner_.restore(asked_.destination / kBestState)) {
                throw Error(ErrorCode::io, (asked_.destination / kBestState).string() + ": is no longer there",
                            Remedy::start_over);
            }
            report.best_step = best().step;
            report.nll_after = best().nll;
        }
        Json result = {{"steps", report.steps}, {"tokens", report.tokens}, {"best_step", report.best_step}};
        if (report.nll_before) result["nll_before"] = *report.nll_before;
        if (report.nll_after) result["nll_after"] = *report.nll_after;
        const Json record = {{"fingerprint", fingerprint},
                             {"options", options_json(options_)},
                             {"data", asked_.data},
                             {"result", result}};
        report.output_bytes =
            write_trained(tuner_.model(), model_, {asked_.destination, asked_.dtype, record, log_.text()});
        clear();
        return report;
    }

    /// Removes what only an unfinished run has.
    void clear() const {
        for (const auto name : {kRunFile, kRunLog, kRunState, kBestState}) {
            (void)files::remove(asked_.destination / name);
        }
    }
    [[nodiscard]] bool saved() const { return files::exists(asked_.destination / kRunState); }

private:
    void save() { tuner_.save(asked_.destination / kRunState, log_.text()); }

    [[nodiscard]] bool restored() {
        try {
            const auto log = tuner_.restore(asked_.destination / kRunState);
            if (log) log_.restore(*log);
            return log.has_value();
        } catch (const Error& error) {
            if (error.code() != ErrorCode::format) throw;
            observer_.warn(std::string(error.what()) + "; training starts again");
            return false;
        }
    }

    /// Of the evaluations, of which there is at least one; the earliest of equal ones.
    [[nodiscard]] const Evaluated& best() const {
        return *std::ranges::min_element(log_.evaluations(), {}, &Evaluated::nll);
    }

    /// Before the first step, behind the last one, and at whole multiples of FinetuneRun::eval_every.
    [[nodiscard]] bool evaluation_due() const {
        const std::int64_t done = tuner_.steps_done();
        if (asked_.evaluation.empty()) return false;
        if (!log_.evaluations().empty() && log_.evaluations().back().step == done) return false;
        return done == 0 || done == options_.steps || (asked_.eval_every > 0 && done % asked_.eval_every == 0);
    }

    void evaluate_now() {
        const double nll = evaluate(tuner_.model(), asked_.evaluation, options_.seq_len, observer_).nll;
        log_.add(Evaluated{tuner_.steps_done(), nll});
        if (asked_.patience > 0 && best().step == tuner_.steps_done()) tuner_.save(asked_.destination / kBestState);
    }

    [[nodiscard]] bool out_of_patience() const {
        if (asked_.patience == 0) return false;
        const auto since =
            std::ranges::count_if(log_.evaluations(), [&](const Evaluated& at) { return at.step > best().step; });
        return since >= asked_.patience;
    }

    const Model& model_;
    const FinetuneOptions& options_;
    const FinetuneRun& asked_;
    Observer& observer_;
    Finetuner tuner_;
    TrainingLog log_;
};

/// @throws Error{io} if the directory holds anything but what an unfinished output has.
void refuse_other_files(const fs::path& directory) {
    std::vector<std::string> names;
    const int error = files::list(directory, names);
    if (error != 0 || !std::ranges::all_of(names, is_unfinished_name)) check_output_directory(directory, false);
}

/// What a destination holds of a run.
struct Found {
    std::optional<FinetuneReport> finished;
    bool unfinished = false;
};

/// @throws Error if the run may not begin there.
Found look_at_destination(const Model& model, const FinetuneRun& run, const Json& fingerprint) {
    std::error_code ignored;
    if (fs::equivalent(model.checkpoint.directory(), run.destination, ignored)) {
        throw Error(ErrorCode::usage, run.destination.string() + ": source and destination are the same directory");
    }
    const Json record = json_at(run.destination / kTrainingRecord), begun = json_at(run.destination / kRunFile);
    if (run.resume && record.is_object() && record.value("fingerprint", Json()) == fingerprint) {
        Found found;
        found.finished = report_of(record.value("result", Json::object()));
        found.finished->already_finished = true;
        return found;
    }
    if (run.resume && begun.is_object()) {
        const std::string different = differences(begun.value("fingerprint", Json()), fingerprint);
        if (different.empty()) return {{}, true};
        if (!run.overwrite) {
            throw Error(ErrorCode::usage,
                        run.destination.string() + ": holds an unfinished run of other settings: " + different,
                        Remedy::start_over);
        }
    }
    if (run.overwrite) return {};
    if (begun.is_object()) {
        throw Error(ErrorCode::io, run.destination.string() + ": holds an unfinished training run",
                    Remedy::resume_or_overwrite);
    }
    refuse_other_files(run.destination);
    return {};
}

}  // namespace

void check_training_destination(const fs::path& destination) {
    const bool of_a_run =
        json_at(destination / kTrainingRecord).is_object() || json_at(destination / kRunFile).is_object();
    if (!of_a_run) refuse_other_files(destination);
}

FinetuneReport finetune(const Model& model, const Model* teacher, const TrainingText& text,
                        const FinetuneOptions& options, const FinetuneRun& asked, Observer& observer,
                        const std::function<void(const StepReport&)>& report) {
    const Json fingerprint = fingerprint_of(model, teacher, text, options, asked);
    if (asked.resume || asked.overwrite) settle(asked.destination);
    if (auto found = look_at_destination(model, asked, fingerprint); found.finished) return *found.finished;
    const DestinationLock lock(asked.destination);
    // Again: while this process waited for the lock, another one may have changed what is there.
    const Found found = look_at_destination(model, asked, fingerprint);
    if (found.finished) return *found.finished;
    Run run(model, teacher, text, options, asked, observer);
    try {
        run.begin(fingerprint, found.unfinished);
        run.train(report);
        return run.publish(fingerprint);
    } catch (...) {
        if (!run.saved()) run.clear();  // nothing to go on with
        throw;
    }
}

}  // namespace mha2mla
