#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <map>
#include <memory>

#include "batch_stages.hpp"
#include "commands.hpp"
#include "mha2mla/atomic_file.hpp"
#include "mha2mla/calibration.hpp"
#include "mha2mla/error.hpp"
#include "mha2mla/fingerprint.hpp"
#include "mha2mla/memory.hpp"
#include "mha2mla/printable.hpp"
#include "mha2mla/record.hpp"
#include "mha2mla/shard.hpp"
#include "mha2mla/threads.hpp"
#include "output.hpp"
#include "output_paths.hpp"
#include "recipe_settings.hpp"
#include "remedies.hpp"

namespace mha2mla::tool {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr int kFailed = 1;
constexpr const char* kGoOn = "go on";

struct BatchFlags {
    fs::path recipe;
    std::map<std::string, std::string> variables;
    Shard shard;
    bool overwrite = false, dry_run = false, json = false;
};

/// A job with what is known of it before it runs, and what came of it.
struct Entry {
    BatchJob job;
    // done, convert, resume, evaluate, replace, or go on where only its stages are left; then done, skipped, failed or
    // not run
    std::string state;
    std::string error;
    Plan plan;
    std::uint64_t output_bytes = 0, memory = 0;
    fs::path statistics;      // that it may share
    bool calibrates = false;  // first of those that share statistics which are not there yet
    bool aligns = false;      // so that the split, and with it the parameters, are not known yet
    double seconds = 0;
    bool planned = false, writes = false;
    StagesReport stages;
};

ConvertFlags flags_for(const BatchJob& job, bool overwrite) {
    ConvertFlags flags = flags_of(job);
    flags.resume = true;
    flags.overwrite = overwrite;
    return flags;
}

fs::path statistics_directory(const Recipe& recipe) { return recipe.output / "statistics"; }
fs::path evaluations_directory(const Recipe& recipe) { return recipe.output / "evaluations"; }

fs::path summary_file(const Recipe& recipe, const Shard& shard) {
    const std::string share = std::to_string(shard.index + 1) + "-of-" + std::to_string(shard.count);
    return recipe.output / (shard.count == 1 ? "summary.json" : "summary-" + share + ".json");
}

/// What the jobs need that share a file of statistics.
using SharedNeeds = std::map<fs::path, StatisticSet>;

/// Fills in what can be known. @throws whatever keeps the job from running.
void look_at(Entry& entry, const Recipe& recipe, const BatchFlags& batch, SharedNeeds& shared, Context& context) {
    check_stages(entry.job, evaluations_directory(recipe), batch.overwrite, context);
    if (!entry.job.converts) {
        (void)open_model(entry.job.source, context.ignore_unused, context);
        entry.state = kGoOn;
        return;
    }
    const ConvertFlags flags = flags_for(entry.job, batch.overwrite);
    const Conversion conversion = prepare(flags, context, statistics_directory(recipe));
    entry.plan = conversion.cost;
    entry.output_bytes = planned_output_bytes(conversion.model, conversion.plan);
    entry.memory = planned_memory(conversion.model.config, conversion.plan, conversion.limits.max_memory);
    entry.planned = true;
    entry.aligns = conversion.plan.aligned() != nullptr;
    if (is_done(conversion, flags)) {
        entry.state = stages_text(entry.job).empty() ? "done" : kGoOn;
        return;
    }
    if (finished_conversion(flags.destination, conversion.fingerprint)) {
        entry.state = "evaluate";
        return;
    }
    const Json before = fingerprint_at(flags.destination);
    const std::string changed = before.is_null() ? "" : differences(before, conversion.fingerprint);
    if (!changed.empty() && !batch.overwrite) {
        throw Error(ErrorCode::usage, flags.destination.string() + ": was made with other settings (" + changed +
                                          "); replace it with --overwrite or choose another destination");
    }
    check_destination(conversion.model, flags.destination, conversion.limits);
    check_evaluation(conversion, flags, context);
    entry.state = before.is_null() ? "convert" : changed.empty() ? "resume" : "replace";
    entry.writes = true;
    const StatisticSet& needs = conversion.shared.needs;
    entry.statistics = conversion.shared.file;
    if (entry.statistics.empty() || has_statistics(conversion.shared)) return;
    const auto [place, first] = shared.emplace(entry.statistics, needs);
    place->second |= needs;
    entry.calibrates = first;
    const std::int64_t seq_len = conversion.provenance.ranks_from.at("seq-len");
    // A calibration takes what there is; less than this it cannot do with.
    if (entry.calibrates) {
        entry.memory =
            std::max(entry.memory, least_calibration_memory(conversion.model.config, 1, seq_len, needs.inputs()));
    }
}

std::vector<Entry> plan_jobs(const Recipe& recipe, const BatchFlags& flags, SharedNeeds& shared, Context& context) {
    std::vector<Entry> entries;
    for (std::size_t i = 0; i < recipe.jobs.size(); ++i) {
        if (!flags.shard.has(i)) continue;
        Entry entry;
        entry.job = recipe.jobs[i];
        if (context.observer.cancelled()) throw Error(ErrorCode::interrupted, "interrupted before any job ran");
        try {
            look_at(entry, recipe, flags, shared, context);
        } catch (...) {
            entry.state = "failed";
            entry.error = message_of(as_error(std::current_exception()));
        }
        entries.push_back(std::move(entry));
    }
    return entries;
}

std::string free_disk(const fs::path& path) {
    fs::path there = fs::absolute(path);
    std::error_code error;
    while (!fs::exists(there, error) && there.has_relative_path()) there = there.parent_path();
    const auto space = fs::space(there, error);
    return error ? "unknown" : memory_text(space.available);
}

std::string notes(const Entry& entry) {
    if (!entry.error.empty()) return entry.error;
    std::string text = entry.calibrates ? "calibrates" : entry.aligns ? "aligned; parameter count approximate" : "";
    const std::string stages = stages_text(entry.job);
    if (!text.empty() && !stages.empty()) text += "; ";
    return text + stages;
}

void print_plan(const Recipe& recipe, const std::vector<Entry>& entries) {
    std::vector<std::vector<std::string>> rows = {
        {"job", "state", "parameters", "KV bytes per token", "output", "memory", "note"}};
    std::uint64_t needed = 0;
    for (const auto& entry : entries) {
        if (entry.writes) needed += entry.output_bytes;
        if (!entry.planned) {
            rows.push_back({entry.job.name, entry.state, "", "", "", "", notes(entry)});
            continue;
        }
        rows.push_back(
            {entry.job.name, entry.state,
             human_count(entry.plan.parameters_original) + " -> " + human_count(entry.plan.parameters_converted),
             human_bytes(entry.plan.original_bytes_per_token) + " -> " +
                 human_bytes(entry.plan.converted_bytes_per_token) + " (" + human_reduction(entry.plan.reduction()) +
                 ")",
             memory_text(entry.output_bytes), memory_text(entry.memory), notes(entry)});
    }
    print_columns(rows);
    std::printf("%zu %s, %s to write; %s free in %s, %s of memory available\n", entries.size(),
                entries.size() == 1 ? "job" : "jobs", memory_text(needed).c_str(), free_disk(recipe.output).c_str(),
                printable(recipe.output.string()).c_str(), memory_text(available_memory()).c_str());
}

Json entry_json(const Entry& entry) {
    Json json;
    json["name"] = entry.job.name;
    json["state"] = entry.state;
    json["source"] = entry.job.source.string();
    json["destination"] = entry.job.destination.string();
    json["settings"] = entry.job.settings;
    if (!entry.error.empty()) json["error"] = entry.error;
    if (!entry.stages.finetuned.is_null()) json["finetuned"] = entry.stages.finetuned;
    if (!entry.stages.evaluations.is_null()) json["evaluations"] = entry.stages.evaluations;
    if (!entry.planned) return json;
    json.update(plan_json(entry.plan, 16));
    json["output_bytes"] = entry.output_bytes;
    json["memory"] = entry.memory;
    json["calibrates"] = entry.calibrates;
    json["seconds"] = entry.seconds;
    json["measured"] = entry.writes && entry.state != "done" ? Json() : measurement_at(entry.job.destination);
    return json;
}

Json summary_json(const BatchFlags& flags, const std::vector<Entry>& entries) {
    Json json;
    json["recipe"] = flags.recipe.string();
    json["shard"] = flags.shard.text();
    for (const char* state : {"done", "skipped", "failed", "not run"}) {
        json[state] = std::count_if(entries.begin(), entries.end(), [&](const auto& e) { return e.state == state; });
    }
    json["jobs"] = Json::array();
    for (const auto& entry : entries) json["jobs"].push_back(entry_json(entry));
    return json;
}

/// Before the work. @throws Error if the summary would replace what is none
void check_summary(const Recipe& recipe, const BatchFlags& flags) {
    if (!fs::is_directory(recipe.output)) return;
    check_output_paths({{"the summary", summary_file(recipe, flags.shard), "\"recipe\""}}, {flags.recipe},
                       flags.overwrite);
}

void save_summary(const Recipe& recipe, const BatchFlags& flags, const std::vector<Entry>& entries) {
    fs::create_directories(recipe.output);
    write_file_atomically(summary_file(recipe, flags.shard), json_text(summary_json(flags, entries), 2) + "\n");
}

/// Written after every job, so that it says what there is whatever ends the run. The jobs are worth more than it.
void try_to_save_summary(const Recipe& recipe, const BatchFlags& flags, const std::vector<Entry>& entries) {
    try {
        save_summary(recipe, flags, entries);
    } catch (...) {
        spdlog::warn("no summary: {}", message_of(as_error(std::current_exception())));
    }
}

void print_summary(const std::vector<Entry>& entries) {
    std::vector<std::vector<std::string>> rows = {{"job", "result", "seconds", "NLL", "note"}};
    for (const auto& entry : entries) {
        const bool whole = entry.job.converts && (entry.state == "done" || entry.state == "skipped");
        const Json measured = whole ? measurement_at(entry.job.destination) : Json();
        const std::string nll =
            measured.is_null() ? "" : fixed(measured.at("nll_original")) + " -> " + fixed(measured.at("nll_converted"));
        rows.push_back({entry.job.name, entry.state, fixed(entry.seconds, 1), nll, entry.error});
    }
    std::printf("\n");
    print_columns(rows);
}

/// One row for each job that was evaluated, one column for each evaluation of any.
void print_evaluations(const std::vector<Entry>& entries) {
    std::vector<std::string> header = {"job"};
    for (const auto& entry : entries) {
        for (const auto& [name, result] : entry.stages.evaluations.items()) {
            const std::string title = name + " " + result.begin().key();
            if (std::ranges::find(header, title) == header.end()) header.push_back(title);
        }
    }
    if (header.size() == 1) return;
    std::vector<std::vector<std::string>> rows = {header};
    for (const auto& entry : entries) {
        if (entry.stages.evaluations.is_null()) continue;
        std::vector<std::string> row(header.size());
        row.front() = entry.job.name;
        for (const auto& [name, result] : entry.stages.evaluations.items()) {
            const auto column = std::ranges::find(header, name + " " + result.begin().key()) - header.begin();
            row.at(static_cast<std::size_t>(column)) = fixed(result.begin().value());
        }
        rows.push_back(row);
    }
    std::printf("\n");
    print_columns(rows);
}

void convert_job(Entry& entry, const Recipe& recipe, const BatchFlags& batch, const SharedNeeds& shared,
                 Context& context) {
    const ConvertFlags flags = flags_for(entry.job, batch.overwrite);
    Conversion conversion = prepare(flags, context, statistics_directory(recipe));
    if (const auto needs = shared.find(entry.statistics); needs != shared.end()) {
        conversion.shared.needs |= needs->second;
    }
    // An unfinished conversion of other settings would be refused, and is to be replaced.
    if (entry.state == "replace") conversion.limits.resume = false;
    Json job = {{"source", flags.source.string()}, {"destination", flags.destination.string()}};
    job.update(entry.job.settings);
    const Json named = published({{"jobs", Json::array({job})}}, conversion.model);
    conversion.provenance.recipe = written(named);
    conversion.provenance.command = command_line(named);
    (void)run_conversion(conversion, flags, context);
}

void run_job(Entry& entry, const Recipe& recipe, const BatchFlags& batch, const SharedNeeds& shared, Context& context) {
    const bool converted = entry.state == kGoOn;
    if (!converted) convert_job(entry, recipe, batch, shared, context);
    entry.stages = run_stages(entry.job, evaluations_directory(recipe), batch.overwrite, context);
    entry.state = converted && !entry.stages.worked ? "skipped" : "done";
}

void run_jobs(const Recipe& recipe, const BatchFlags& flags, const SharedNeeds& shared, std::vector<Entry>& entries,
              Context& context) {
    for (std::size_t i = 0; i < entries.size(); ++i) {
        Entry& entry = entries[i];
        if (entry.state == "failed") continue;
        if (entry.state == "done") {
            entry.state = "skipped";
            continue;
        }
        spdlog::info("job {} of {}: {}", i + 1, entries.size(), entry.job.name);
        const auto start = std::chrono::steady_clock::now();
        try {
            run_job(entry, recipe, flags, shared, context);
        } catch (...) {
            const Error error = as_error(std::current_exception());
            entry.error = message_of(error);
            if (error.code() == ErrorCode::interrupted) {
                for (auto& other : entries) {
                    if (other.state == "done" && &other > &entry) other.state = "skipped";
                    const bool over = other.state == "done" || other.state == "skipped" || other.state == "failed";
                    if (!over) other.state = "not run";
                }
                try_to_save_summary(recipe, flags, entries);
                throw Error(ErrorCode::interrupted,
                            "interrupted in job " + entry.job.name + "; run the same command again to go on");
            }
            entry.state = "failed";
        }
        entry.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        if (entry.state == "failed") spdlog::error("job {}: {}", entry.job.name, entry.error);
        try_to_save_summary(recipe, flags, entries);
    }
}

void run(const BatchFlags& flags, Context& context) {
    const ThreadScope threads(context.threads);
    const Recipe recipe = read_recipe(flags.recipe, recipe_settings(), flags.variables);
    check_summary(recipe, flags);
    SharedNeeds shared;
    auto entries = plan_jobs(recipe, flags, shared, context);
    const bool any_failed =
        std::any_of(entries.begin(), entries.end(), [](const auto& e) { return e.state == "failed"; });
    if (!flags.json) print_plan(recipe, entries);
    if (flags.dry_run) {
        if (flags.json) print_json(summary_json(flags, entries));
        flush_stdout();
        if (any_failed) throw ExitWith{kFailed};
        return;
    }
    std::fflush(stdout);
    run_jobs(recipe, flags, shared, entries, context);
    if (flags.json) {
        print_json(summary_json(flags, entries));
    } else {
        print_summary(entries);
        print_evaluations(entries);
    }
    flush_stdout();
    with_errors([&] { save_summary(recipe, flags, entries); });
    if (std::any_of(entries.begin(), entries.end(), [](const auto& e) { return e.state == "failed"; })) {
        throw ExitWith{kFailed};
    }
}

}  // namespace

void add_batch(CLI::App& app, Context& context) {
    auto flags = std::make_shared<BatchFlags>();
    auto* command =
        app.add_subcommand("batch", "Run the conversions, fine-tunings and evaluations of a recipe, each at most once");
    command->add_option("recipe", flags->recipe, "JSON file: sources and settings, see docs/batch.md")
        ->required()
        ->type_name("FILE");
    command
        ->add_option_function<std::string>(
            "--set",
            [flags](const std::string& text) {
                const auto equals = text.find('=');
                if (equals == 0 || equals == std::string::npos) {
                    throw CLI::ValidationError("--set", "'" + text + "' is not a variable and its value, NAME=VALUE");
                }
                flags->variables[text.substr(0, equals)] = text.substr(equals + 1);
            },
            "Value of a variable of the recipe, instead of its own; can be given several times")
        ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
        ->trigger_on_parse()
        ->type_name("NAME=VALUE");
    command->add_flag("--dry-run", flags->dry_run,
                      "Print what would be done, the memory and disk it takes, and the resulting sizes");
    add_shard_option(
        *command, [flags](const Shard& shard) { flags->shard = shard; },
        "Only the I-th of N equal shares of the jobs, for several machines");
    command->add_flag("--overwrite", flags->overwrite, "Replace outputs that were made with other settings");
    add_threads_option(*command, context);
    add_size(*command, "--max-memory", context.max_memory, "Private memory that a job may take, as for convert");
    add_json_option(*command, flags->json);
    set_footer(
        *command,
        "Complete and unchanged outputs are skipped, unfinished ones are resumed: after a run has ended early, run "
        "the same command again.\n"
        "Exit code 1 if any job failed.",
        {{"what would be done, and what it takes", "mha2mla batch recipe.json --dry-run"},
         {"the second of four shares, on one of four machines", "mha2mla batch recipe.json --shard 2/4"},
         {"checkpoints that are somewhere else", "mha2mla batch recipe.json --set models=/data/models"}});
    command->callback([flags, &context] { run(*flags, context); });
}

}  // namespace mha2mla::tool
