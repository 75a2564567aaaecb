#include <algorithm>
#include <array>
#include <memory>

#include "commands.hpp"
#include "evaluation.hpp"
#include "mha2mla/choices.hpp"
#include "mha2mla/error.hpp"
#include "mha2mla/evaluate.hpp"
#include "mha2mla/plan.hpp"
#include "mha2mla/suggestion.hpp"
#include "mha2mla/threads.hpp"
#include "option_rules.hpp"
#include "options.hpp"
#include "output.hpp"

namespace mha2mla::tool {
namespace {

bool runs_model(const EvalFlags& flags) { return flags.longbench.score.empty(); }
bool of_text(const EvalFlags& flags) { return flags.choices.empty() && !flags.longbench.given(); }
bool has_length(const EvalFlags& flags) { return of_text(flags) || flags.longbench.runs(); }
bool reads_text(const EvalFlags& flags) { return runs_model(flags) && flags.tokens.tokens.empty(); }
bool has_tasks(const EvalFlags& flags) { return !of_text(flags); }
constexpr std::string_view kRunsModel = "a model, not --longbench-score";
constexpr std::array<OptionRule<EvalFlags>, 5> kEvalRules = {{
    {"--context", [](const EvalFlags& flags) { return flags.windows.context.has_value(); }, has_length,
     "--text, --tokens or --longbench"},
    {"--max-windows", [](const EvalFlags& flags) { return flags.windows.max_windows.has_value(); }, of_text,
     "--text or --tokens, not --choices or --longbench"},
    {"--task", [](const EvalFlags& flags) { return !flags.tasks.empty(); }, has_tasks,
     "--choices, --longbench or --longbench-score"},
    {"--tokenizer", [](const EvalFlags& flags) { return !flags.tokens.tokenizer.empty(); }, reads_text, kRunsModel},
    {"--kv-cache", [](const EvalFlags& flags) { return flags.cache.format.has_value(); }, runs_model, kRunsModel},
}};

/// @throws Error{usage} unless the names are one, that of a data set of multiple choice.
const ChoiceTask& find_task(const std::vector<std::string>& names) {
    if (names.size() > 1) throw Error(ErrorCode::usage, "--choices is one data set; give one --task");
    const auto tasks = choice_tasks();
    if (names.empty()) return tasks.front();
    std::vector<std::string> candidates;
    for (const auto& task : tasks) {
        if (task.name == names.front()) return task;
        candidates.emplace_back(task.name);
    }
    throw Error(ErrorCode::usage,
                "--task " + names.front() + " is no data set of --choices" + did_you_mean(names.front(), candidates));
}

std::string percent(const Accuracy& accuracy) {
    return fixed(100 * accuracy.mean, 2) + " +- " + fixed(100 * accuracy.standard_error, 2) + " %";
}

nlohmann::ordered_json accuracy_json(const Accuracy& accuracy) {
    return {{"accuracy", accuracy.mean}, {"standard_error", accuracy.standard_error}};
}

void run_choices(const EvalFlags& flags, const Model& model, Context& context) {
    const auto items = read_choices(flags.choices, find_task(flags.tasks));
    const auto& given = flags.tokens.tokenizer;
    const Tokenizer tokenizer =
        Tokenizer::load(given.empty() ? model.checkpoint.directory() / "tokenizer.json" : given);
    ChoiceResult result;
    try {
        result = score_choices(model, tokenizer, items, flags.cache.options(model), context.observer);
    } catch (const Error& error) {
        throw error.with_prefix(flags.choices.string() + ": ");
    }
    if (flags.json.asked) {
        nlohmann::ordered_json json;
        json["summed"] = accuracy_json(result.summed);
        json["normalized"] = accuracy_json(result.normalized);
        json["questions"] = result.items;
        json["choices"] = result.choices;
        json["tokens"] = result.tokens;
        json["truncated"] = result.truncated;
        json["log_likelihoods"] = result.log_likelihoods;
        flags.json.put(json);
        return;
    }
    print_table({
        {"accuracy", percent(result.summed)},
        {"length-normalised", percent(result.normalized)},
        {"scored", std::to_string(result.tokens) + " tokens in " + std::to_string(result.choices) + " choices of " +
                       std::to_string(result.items) + " questions"},
    });
}

}  // namespace

void check_evaluation_flags(const EvalFlags& flags) {
    check_rules(kEvalRules, flags);
    check_kv_cache_flags(flags.cache);
    check_longbench_flags(flags.longbench);
    if (!flags.choices.empty()) (void)find_task(flags.tasks);
}

void run_evaluation(const EvalFlags& flags, Context& context) {
    check_evaluation_flags(flags);
    const LongbenchSettings settings{flags.tasks, flags.tokens.tokenizer, flags.windows.context, flags.json};
    if (!runs_model(flags)) return eval_predictions(flags.longbench, settings, context);
    if (flags.model.empty()) throw CLI::RequiredError("model");
    const ThreadScope threads(context.threads);
    const Model model = open_model(flags.model, context.ignore_unused, context);
    if (flags.longbench.runs()) return eval_longbench(flags.longbench, settings, flags.cache, model, context);
    if (!flags.choices.empty()) return run_choices(flags, model, context);
    std::int64_t window_length = 0;
    const auto windows = load_windows(flags.tokens, flags.windows, model, context, window_length);
    const KvCacheOptions cache = flags.cache.options(model);
    const EvalResult result = flags.cache.format ? evaluate(model, windows, window_length, cache, context.observer)
                                                 : evaluate(model, windows, window_length, context.observer);
    const int bits = flags.cache.format ? row_of(cache.format).bits : 16;
    const double cache_bytes = bits / 8.0 * static_cast<double>(cache_numbers_per_token(model.config));
    const std::string format = flags.cache.format ? std::string(row_of(cache.format).name) : "16 bit";
    if (flags.json.asked) {
        nlohmann::ordered_json json;
        json["nll"] = result.nll;
        json["perplexity"] = result.perplexity();
        json["tokens"] = result.tokens;
        json["windows"] = result.windows;
        json["context"] = result.context;
        json["kv_cache_bytes_per_token"] = number(cache_bytes);
        if (flags.cache.format) json["kv_cache_format"] = format;
        flags.json.put(json);
        return;
    }
    print_table({
        {"NLL", fixed(result.nll) + " nats per token"},
        {"perplexity", fixed(result.perplexity(), 3)},
        {"scored", std::to_string(result.tokens) + " tokens in " + std::to_string(result.windows) + " windows of " +
                       std::to_string(result.context)},
        {"KV cache per token", human_bytes(cache_bytes) + " bytes at " + format},
    });
}

namespace {

/// Names of both kinds of data sets; which of them fit is known when all options are.
void add_task_option(CLI::App& command, std::vector<std::string>& names) {
    std::vector<std::string> known;
    for (const auto& task : choice_tasks()) known.emplace_back(task.name);
    for (const auto& task : longbench_tasks()) {
        if (!task.prompt.empty()) known.emplace_back(task.name);
    }
    const auto check = [known](const std::string& name) -> std::string {
        if (std::find(known.begin(), known.end(), name) != known.end()) return "";
        return "'" + name + "' is not one of " + CLI::detail::join(known) + did_you_mean(name, known);
    };
    command
        .add_option("--task", names,
                    "Data set. With --choices: the published one whose JSON Lines it holds as they come; items: query, "
                    "choices, gold. With --longbench: the tasks to run, several separated by commas")
        ->delimiter(',')
        ->allow_extra_args(false)
        ->check(CLI::Validator(check, ""))
        ->type_name("{" + CLI::detail::join(known) + "}")
        ->default_str("items with --choices, all with --longbench")
        ->run_callback_for_default(false);
}

}  // namespace

void add_evaluation_options(CLI::App& command, EvalFlags& flags) {
    add_checkpoint_option(command, flags.model);
    command.get_option("model")->required(false);  // predictions are scored without one
    add_token_options(command, flags.tokens);
    add_window_options(command, flags.windows);
    command.get_option("--context")
        ->description(
            "Tokens of a window, BOS included; default: 2048 or max_position_embeddings if less. With --longbench: of "
            "a "
            "prompt; default: max_position_embeddings less the task's new tokens. With --protocol mha2mla: of a prompt "
            "and "
            "its new tokens; default: 2048");
    add_kv_cache_options(
        command, flags.cache,
        "none, all of a window at once in float32; with --choices and --longbench that of the weights");
    command
        .add_option("--choices", flags.choices,
                    "Multiple choice instead of a text: JSON Lines with query, choices and gold, or see --task")
        ->type_name("FILE")
        ->excludes("--text")
        ->excludes("--tokens");
    command.get_option("--tokenizer")->remove_needs(command.get_option("--text"));  // others read text too
    add_task_option(command, flags.tasks);
    add_longbench_options(command, flags.longbench);
    document_rules(command, kEvalRules);
}

void add_eval(CLI::App& app, Context& context) {
    auto flags = std::make_shared<EvalFlags>();
    auto* command = app.add_subcommand(
        "eval", "NLL and perplexity of a checkpoint on a text, or its score on multiple choice or LongBench");
    add_ignore_unused_option(*command, context.ignore_unused);
    add_evaluation_options(*command, *flags);
    add_threads_option(*command, context);
    add_json_option(*command, flags->json.asked);
    set_footer(*command, "",
               {{"", "mha2mla eval ./model --text wiki.txt --context 2048"},
                {"quicker, for scripts", "mha2mla eval ./model-mla --text wiki.txt --max-windows 16 --json"},
                {"multiple choice", "mha2mla eval ./model --choices hellaswag_val.jsonl --task hellaswag"},
                {"LongBench with a quantised cache; the same command goes on where it was interrupted",
                 "mha2mla eval ./model --longbench LongBench/data --kv-cache int4-hqq --predictions pred/model-int4"}});
    command->callback([flags, &context] { run_evaluation(*flags, context); });
}

}  // namespace mha2mla::tool
