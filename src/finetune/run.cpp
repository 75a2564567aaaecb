#include <algorithm>
#include <chrono>
#include <cmath>
#include <fstream>
#include <optional>

#include "../checkpoint/destination.hpp"
#include "../convert/journal.hpp"
#include "../convert/layout.hpp"
#include "../convert/output_files.hpp"
#include "../convert/record.hpp"
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

/// What the state of an unfinished run depends on: all but how the output is stored.
std::string state_key(Json fingerprint) {
    fingerprint.erase("dtype");
    const std::string text = fingerprint.dump();
    return hash_of(std::as_bytes(std::span(text)));
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

/// @throws nlohmann::json::exception if edited by hand
FinetuneReport report_of(const Json& result) {
    const auto number = [&](const char* key) {
        return result.contains(key) ? std::optional(result.at(key).get<double>()) : std::nullopt;
    };
    FinetuneReport report;
    report.steps = whole_number(result.at("steps"));
    report.tokens = whole_number(result.at("tokens"));
    report.best_step = whole_number(result.at("best_step"));
    report.nll_before = number("nll_before");
    report.nll_after = number("nll_after");
    return report;
}

/// One run, from its destination to its output.
class Run {
public:
    Run(const Model& model, const Model* teacher, const TrainingText& text, const FinetuneOptions& options,
        const FinetuneRun& asked, const Json& fingerprint, Observer& observer)
        : model_(model),
          options_(options),
          asked_(asked),
          fingerprint_(fingerprint),
          key_(state_key(fingerprint)),
          observer_(observer),
          tuner_(model, teacher, text, options),
          log_(asked.destination / kRunLog) {}

    /// Goes on with what an earlier run left, or begins.
    void begin(const DestinationLock& lock, bool resume) {
        if (resume && restored()) return;
        lock.forget_unfinished();  // the state of another run would be taken for this one's
        const Json begun = {{"fingerprint", fingerprint_}, {"overwrite", asked_.overwrite}};
        write_file_atomically(asked_.destination / kRunFile, begun.dump(1) + "\n");
        log_.begin();
    }

    void train(const std::function<void(const StepReport&)>& report) {
        auto last = Clock::now();
        saved_at_ = tuner_.steps_done();
        for (;;) {
            const std::int64_t done = tuner_.steps_done();
            if (evaluation_due()) evaluate_now();
            if (done == options_.steps || out_of_patience()) return;
            const std::chrono::duration<double> since = Clock::now() - last;
            const bool due =
                asked_.save_every > 0 ? done % asked_.save_every == 0 : since.count() > asked_.save_seconds;
            if (due && done != saved_at_) {
                save();
                last = Clock::now();
            }
            observer_.step("train", done, options_.steps);
            const StepReport step = tuner_.step(observer_);
            log_.add(step);
            report(step);
        }
    }

    FinetuneReport publish() {
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
            save();  // what follows changes the weights, and may fail
            if (!tuner_.restore(asked_.destination / kBestState, key_)) {
                throw Error(ErrorCode::io, (asked_.destination / kBestState).string() + ": is no longer there",
                            Remedy::start_over);
            }
            report.best_step = best().step;
            report.nll_after = best().nll;
        }
        Json result = {{"steps", report.steps}, {"tokens", report.tokens}, {"best_step", report.best_step}};
        if (report.nll_before) result["nll_before"] = *report.nll_before;
        if (report.nll_after) result["nll_after"] = *report.nll_after;
        const Json record = {{"fingerprint", fingerprint_},
                             {"options", options_json(options_)},
                             {"data", asked_.data},
                             {"result", result}};
        report.output_bytes =
            write_trained(tuner_.model(), model_, {asked_.destination, asked_.dtype, record, log_.text()});
        published_ = true;
        return report;
    }

    /// What a failure leaves to go on with: as much as can be saved, or nothing. @return the error that says so
    [[nodiscard]] Error failed(const DestinationLock& lock, const Error& error) {
        if (published_) return error;
        const std::int64_t done = tuner_.steps_done();
        try {
            if (done > saved_at_ || (error.code() == ErrorCode::interrupted && !saved())) save();
        } catch (...) {  // NOLINT(bugprone-empty-catch): what was saved before is still there
        }
        try {
            if (!saved()) lock.forget_unfinished();
        } catch (...) {  // NOLINT(bugprone-empty-catch): what is left is no state to go on with
        }
        if (!saved()) return error;
        const std::string at = " after step " + std::to_string(saved_at_) + ", which is saved";
        if (error.code() == ErrorCode::interrupted) return {error.code(), "interrupted" + at, Remedy::resume};
        return {error.code(), std::string(error.message()) + "; step " + std::to_string(saved_at_) + " is saved",
                error.remedy() == Remedy::none && error.code() == ErrorCode::io ? Remedy::resume : error.remedy()};
    }

private:
    void save() {
        tuner_.save(asked_.destination / kRunState, key_, log_.text());
        saved_at_ = tuner_.steps_done();
    }
    [[nodiscard]] bool saved() const { return files::exists(asked_.destination / kRunState); }

    [[nodiscard]] bool restored() {
        try {
            const auto log = tuner_.restore(asked_.destination / kRunState, key_);
            if (log) log_.restore(*log);
            return log.has_value();
        } catch (const Error& error) {
            if (error.code() != ErrorCode::format) throw;
            observer_.warn(std::string(error.message()) + "; training starts again");
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
        if (asked_.patience > 0 && best().step == tuner_.steps_done()) {
            tuner_.save(asked_.destination / kBestState, key_);
        }
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
    const Json& fingerprint_;
    std::string key_;
    Observer& observer_;
    Finetuner tuner_;
    TrainingLog log_;
    std::int64_t saved_at_ = 0;  // steps
    bool published_ = false;
};

/// What a destination holds of a run.
struct Found {
    std::optional<FinetuneReport> finished;
    bool unfinished = false;
};

/// The run whose whole output a directory holds.
std::optional<FinetuneReport> finished_run(const fs::path& directory, const Json& fingerprint) {
    const Json record = json_at(directory / kTrainingRecord);
    if (!record.is_object() || record.value("fingerprint", Json()) != fingerprint) return std::nullopt;
    try {
        if (!holds_files(directory, record.at("files"))) return std::nullopt;
        (void)Model::open(directory);
        FinetuneReport report = report_of(record.at("result"));
        report.already_finished = true;
        return report;
    } catch (const nlohmann::json::exception&) {
        return std::nullopt;  // edited by hand
    } catch (const Error&) {
        return std::nullopt;  // damaged
    }
}

void refuse_same(const Model* model, const char* what, const fs::path& destination) {
    std::error_code ignored;
    if (model == nullptr || !fs::equivalent(model->checkpoint.directory(), destination, ignored)) return;
    throw Error(ErrorCode::usage,
                destination.string() + ": " + what + " and destination are the same directory; choose another place");
}

/// @throws Error if the run may not begin there.
Found look_at_destination(const FinetuneRun& run, const Json& fingerprint) {
    const fs::path& directory = run.destination;
    if (run.resume) {
        if (auto finished = finished_run(directory, fingerprint)) return {std::move(finished), false};
    }
    const Json begun = json_at(directory / kRunFile);
    if (run.resume && begun.is_object()) {
        Json was = begun.value("fingerprint", Json()), is = fingerprint;
        for (Json* each : {&was, &is}) {
            if (each->is_object()) each->erase("dtype");
        }
        const std::string different = differences(was, is);
        if (different.empty()) {
            // Files that have come since are a user's.
            const bool may_replace = run.overwrite || begun.value("overwrite", Json()) == true;
            if (!may_replace) check_only_unfinished(directory);
            return {{}, true};
        }
        if (!run.overwrite) {
            throw Error(ErrorCode::usage,
                        directory.string() + ": holds an unfinished run of other settings: " + different,
                        Remedy::start_over);
        }
    }
    if (!run.overwrite) check_training_destination(directory);
    return {};
}

/// Before the work: what a later write would fail for.
void check_room(const Model& model, const FinetuneOptions& options, const FinetuneRun& run) {
    check_output_names(model.checkpoint, run.destination);
    std::uint64_t output = 0;
    for (const SafetensorsFile& file : model.checkpoint.files()) {
        for (const TensorView& tensor : file.tensors()) {
            output += element_count(tensor.shape) * dtype_bits(output_dtype(tensor.dtype, run.dtype)) / 8;
        }
    }
    const FinetuneMemory memory = finetune_memory(model, options);
    check_free_space(run.destination,
                     output + memory.gradients + memory.moments);  // the state has weights of that size
}

}  // namespace

bool holds_training(const fs::path& directory) {
    return json_at(directory / kTrainingRecord).is_object() || json_at(directory / kRunFile).is_object();
}

void check_training_destination(const fs::path& destination) {
    if (files::exists(destination / kRunFile)) {
        throw Error(ErrorCode::io, destination.string() + ": holds an unfinished training run",
                    Remedy::resume_or_overwrite);
    }
    check_new_output(destination);
}

FinetuneReport finetune(const Model& model, const Model* teacher, const TrainingText& text,
                        const FinetuneOptions& options, const FinetuneRun& asked, Observer& observer,
                        const std::function<void(const StepReport&)>& report) {
    const Json fingerprint = fingerprint_of(model, teacher, text, options, asked);
    refuse_same(&model, "source", asked.destination);
    refuse_same(teacher, "teacher", asked.destination);
    if (asked.resume || asked.overwrite) settle(asked.destination);
    if (auto found = look_at_destination(asked, fingerprint); found.finished) {
        remove_left_over(asked.destination);
        return *found.finished;
    }
    const DestinationLock lock(asked.destination);
    // Again: while this process waited for the lock, another one may have changed what is there.
    const Found found = look_at_destination(asked, fingerprint);
    if (found.finished) return *found.finished;
    check_room(model, options, asked);
    Run run(model, teacher, text, options, asked, fingerprint, observer);
    try {
        run.begin(lock, found.unfinished);
        run.train(report);
        const FinetuneReport published = run.publish();
        lock.forget_unfinished();
        return published;
    } catch (...) {
        throw run.failed(lock, as_error(std::current_exception()));
    }
}

}  // namespace mha2mla
