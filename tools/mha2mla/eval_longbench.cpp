#include "eval_longbench.hpp"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <utility>

#include "mha2mla/error.hpp"
#include "mha2mla/fingerprint.hpp"
#include "option_rules.hpp"
#include "options.hpp"
#include "output.hpp"

namespace mha2mla::tool {
namespace {

using Json = nlohmann::ordered_json;
namespace fs = std::filesystem;

constexpr const char* kLongbench = "LongBench";
constexpr std::string_view kPrompt = "{prompt}";

bool runs(const LongbenchFlags& flags) { return flags.runs(); }
bool wraps(const LongbenchFlags& flags) { return flags.runs() && flags.protocol != LongbenchProtocol::mha2mla; }
constexpr std::string_view kRuns = "--longbench";
constexpr std::array<OptionRule<LongbenchFlags>, 5> kRules = {{
    {"--predictions", [](const LongbenchFlags& flags) { return !flags.predictions.empty(); }, runs, kRuns},
    {"--protocol", [](const LongbenchFlags& flags) { return flags.protocol.has_value(); }, runs, kRuns},
    {"--chat", [](const LongbenchFlags& flags) { return flags.chat.has_value(); }, wraps,
     "--longbench with --protocol longbench"},
    {"--max-items", [](const LongbenchFlags& flags) { return flags.max_items.has_value(); }, runs, kRuns},
    {"--overwrite", [](const LongbenchFlags& flags) { return flags.overwrite; }, runs, kRuns},
}};

std::vector<const LongbenchTask*> tasks_of(const LongbenchSettings& settings) {
    std::vector<const LongbenchTask*> tasks;
    for (const auto& name : settings.tasks) {
        const LongbenchTask& task = longbench_task(name);
        if (std::find(tasks.begin(), tasks.end(), &task) == tasks.end()) tasks.push_back(&task);
    }
    return tasks;
}

Json scores_json(const LongbenchScores& scores) {
    Json json;
    json["average"] = scores.average();
    for (const auto& task : scores.tasks) {
        json["tasks"][std::string(task.task->name)] = {
            {"score", task.percent()},
            {"mean", task.mean()},
            {"metric", kLongbenchMetrics.at(static_cast<std::size_t>(task.task->metric)).name},
            {"samples", task.samples}};
    }
    json["scores"] = scores.scores;
    return json;
}

void print_scores(const LongbenchScores& scores) {
    std::vector<std::vector<std::string>> rows = {{"task", "score", "samples", "metric"}};
    for (const auto& task : scores.tasks) {
        rows.push_back({std::string(task.task->name), fixed(task.percent(), 2), std::to_string(task.samples),
                        std::string(kLongbenchMetrics.at(static_cast<std::size_t>(task.task->metric)).name)});
    }
    const std::string count = std::to_string(scores.tasks.size()) + (scores.tasks.size() == 1 ? " task" : " tasks");
    rows.push_back({"average", fixed(scores.average(), 2), std::to_string(scores.scores.size()), "of " + count});
    print_columns(rows);
}

LongbenchRun run_or_say_how_to_go_on(const Model& model, const LongbenchOptions& options, Context& context) {
    try {
        return run_longbench(model, options, context.observer);
    } catch (const Error& error) {
        if (error.code() != ErrorCode::interrupted) throw;
        throw Error(ErrorCode::interrupted, std::string("interrupted; run the same command again") +
                                                (options.overwrite ? " without --overwrite" : "") + " to go on");
    }
}

}  // namespace

void add_longbench_options(CLI::App& command, LongbenchFlags& flags) {
    command
        .add_option("--longbench", flags.data,
                    "Run LongBench instead of a text: the directory of its JSON Lines, hotpotqa.jsonl and others")
        ->type_name("DIR")
        ->excludes("--text")
        ->excludes("--tokens")
        ->excludes("--choices")
        ->group(kLongbench);
    command
        .add_option(
            "--longbench-score", flags.score,
            "Only score predictions: JSON Lines with pred, answers, all_classes, and dataset unless the file is "
            "named after it; or a directory of such files")
        ->type_name("FILE")
        ->excludes("model")
        ->excludes("--text")
        ->excludes("--tokens")
        ->excludes("--choices")
        ->excludes("--longbench")
        ->group(kLongbench);
    command
        .add_option("--predictions", flags.predictions,
                    "Where predictions are written, and those that are there are not computed again; default: "
                    "pred/ and the model's name")
        ->type_name("DIR")
        ->group(kLongbench);
    std::string help = "How prompts are cut and predictions end:";
    for (const auto& row : kLongbenchProtocols) help += "\n  " + std::string(row.name) + ": " + std::string(row.what);
    add_choice(command, "--protocol", flags.protocol, kLongbenchProtocols, &LongbenchProtocolRow::protocol, help)
        ->default_str(std::string(kLongbenchProtocols.front().name))
        ->group(kLongbench);
    command
        .add_option("--chat", flags.chat,
                    "What to put around prompts for a chat model, with {prompt} where they go; the tasks that continue "
                    "examples or code go without")
        ->type_name("TEXT")
        ->group(kLongbench);
    command.add_option("--max-items", flags.max_items, "Only the first N items of each task; default: all")
        ->check(in_range(1, std::int64_t{1} << 40))
        ->type_name("N")
        ->group(kLongbench);
    command.add_flag("--overwrite", flags.overwrite, "Compute predictions that are there again")->group(kLongbench);
    document_rules(command, kRules);
}

void check_longbench_flags(const LongbenchFlags& flags) {
    check_rules(kRules, flags);
    if (flags.chat && flags.chat->find(kPrompt) == std::string::npos) {
        throw Error(ErrorCode::usage, "--chat has no " + std::string(kPrompt) +
                                          "; say where the prompt goes, as in "
                                          "'[INST]{prompt}[/INST]'");
    }
}

void eval_longbench(const LongbenchFlags& flags, const LongbenchSettings& settings, const KvCacheFlags& cache,
                    const Model& model, Context& context) {
    LongbenchOptions options;
    options.data = flags.data;
    const std::string name = fs::path(base_model(model)).filename().string();
    const bool names_a_place = name.empty() || name == "." || name == "..";
    options.predictions =
        flags.predictions.empty() ? fs::path("pred") / (names_a_place ? "model" : name) : flags.predictions;
    options.tokenizer = settings.tokenizer;
    options.tasks = tasks_of(settings);
    options.protocol = flags.protocol.value_or(options.protocol);
    options.cache = cache.options(model);
    options.max_tokens = settings.context;
    options.max_items = flags.max_items;
    options.chat = flags.chat.value_or("");
    options.overwrite = flags.overwrite;
    spdlog::info("predictions are written to {}", options.predictions.string());
    const LongbenchRun run = run_or_say_how_to_go_on(model, options, context);
    const LongbenchScores scores = score_longbench(run.predictions, context.observer);
    if (!settings.json.asked) {
        print_scores(scores);
        const auto known = static_cast<std::int64_t>(run.predictions.size()) - run.computed;
        std::printf("%lld predictions computed, %lld of them with shortened prompts; %lld were there\n",
                    static_cast<long long>(run.computed), static_cast<long long>(run.truncated),
                    static_cast<long long>(known));
        return;
    }
    Json json = scores_json(scores);
    json["predictions"] = options.predictions.string();
    json["computed"] = run.computed;
    json["truncated"] = run.truncated;
    json["protocol"] = kLongbenchProtocols.at(static_cast<std::size_t>(options.protocol)).name;
    json["kv_cache_format"] = row_of(options.cache.format).name;
    settings.json.put(json);
}

void eval_predictions(const LongbenchFlags& flags, const LongbenchSettings& settings, Context& context) {
    auto predictions = read_longbench_predictions(flags.score);
    const auto tasks = tasks_of(settings);
    if (!tasks.empty()) {
        std::erase_if(predictions, [&](const LongbenchPrediction& prediction) {
            return std::find(tasks.begin(), tasks.end(), prediction.task) == tasks.end();
        });
        if (predictions.empty()) {
            throw Error(ErrorCode::usage, flags.score.string() + ": there are no predictions of these tasks");
        }
    }
    const LongbenchScores scores = score_longbench(predictions, context.observer);
    if (settings.json.asked) return settings.json.put(scores_json(scores));
    print_scores(scores);
}

}  // namespace mha2mla::tool
