#include <algorithm>
#include <array>
#include <memory>

#include "commands.hpp"
#include "kv_cache_options.hpp"
#include "mha2mla/choices.hpp"
#include "mha2mla/error.hpp"
#include "mha2mla/evaluate.hpp"
#include "mha2mla/plan.hpp"
#include "mha2mla/threads.hpp"
#include "option_rules.hpp"
#include "options.hpp"
#include "output.hpp"

namespace mha2mla::tool {
namespace {

struct EvalFlags {
    std::filesystem::path model;
    TextSource tokens;
    WindowFlags windows;
    KvCacheFlags cache;
    std::filesystem::path choices;
    std::string_view task = choice_tasks().front().name;
    bool json = false;
};

bool of_text(const EvalFlags& flags) { return flags.choices.empty(); }
constexpr std::string_view kOfText = "--text or --tokens, not --choices";
constexpr std::array<OptionRule<EvalFlags>, 2> kEvalRules = {{
    {"--context", [](const EvalFlags& flags) { return flags.windows.context.has_value(); }, of_text, kOfText},
    {"--max-windows", [](const EvalFlags& flags) { return flags.windows.max_windows.has_value(); }, of_text, kOfText},
}};

const ChoiceTask& find_task(std::string_view name) {
    const auto tasks = choice_tasks();
    return *std::find_if(tasks.begin(), tasks.end(), [&](const ChoiceTask& task) { return task.name == name; });
}

std::string percent(const Accuracy& accuracy) {
    return fixed(100 * accuracy.mean, 2) + " +- " + fixed(100 * accuracy.standard_error, 2) + " %";
}

nlohmann::ordered_json accuracy_json(const Accuracy& accuracy) {
    return {{"accuracy", accuracy.mean}, {"standard_error", accuracy.standard_error}};
}

void run_choices(const EvalFlags& flags, const Model& model, Context& context) {
    const auto items = read_choices(flags.choices, find_task(flags.task));
    const auto& given = flags.tokens.tokenizer;
    const Tokenizer tokenizer =
        Tokenizer::load(given.empty() ? model.checkpoint.directory() / "tokenizer.json" : given);
    ChoiceResult result;
    try {
        result = score_choices(model, tokenizer, items, flags.cache.options(model), context.observer);
    } catch (const Error& error) {
        throw error.with_prefix(flags.choices.string() + ": ");
    }
    if (flags.json) {
        nlohmann::ordered_json json;
        json["summed"] = accuracy_json(result.summed);
        json["normalized"] = accuracy_json(result.normalized);
        json["questions"] = result.items;
        json["choices"] = result.choices;
        json["tokens"] = result.tokens;
        json["truncated"] = result.truncated;
        json["log_likelihoods"] = result.log_likelihoods;
        print_json(json);
        return;
    }
    print_table({
        {"accuracy", percent(result.summed)},
        {"length-normalised", percent(result.normalized)},
        {"scored", std::to_string(result.tokens) + " tokens in " + std::to_string(result.choices) + " choices of " +
                       std::to_string(result.items) + " questions"},
    });
}

void run(const EvalFlags& flags, Context& context) {
    check_rules(kEvalRules, flags);
    check_kv_cache_flags(flags.cache);
    const ThreadScope threads(context.threads);
    const Model model = open_model(flags.model, context.ignore_unused, context);
    if (!flags.choices.empty()) return run_choices(flags, model, context);
    std::int64_t window_length = 0;
    const auto windows = load_windows(flags.tokens, flags.windows, model, context, window_length);
    const KvCacheOptions cache = flags.cache.options(model);
    const EvalResult result = flags.cache.format ? evaluate(model, windows, window_length, cache, context.observer)
                                                 : evaluate(model, windows, window_length, context.observer);
    const int bits = flags.cache.format ? row_of(cache.format).bits : 16;
    const double cache_bytes = bits / 8.0 * static_cast<double>(cache_numbers_per_token(model.config));
    const std::string format = flags.cache.format ? std::string(row_of(cache.format).name) : "16 bit";
    if (flags.json) {
        nlohmann::ordered_json json;
        json["nll"] = result.nll;
        json["perplexity"] = result.perplexity();
        json["tokens"] = result.tokens;
        json["windows"] = result.windows;
        json["context"] = result.context;
        json["kv_cache_bytes_per_token"] = number(cache_bytes);
        if (flags.cache.format) json["kv_cache_format"] = format;
        print_json(json);
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

}  // namespace

void add_eval(CLI::App& app, Context& context) {
    auto flags = std::make_shared<EvalFlags>();
    auto* command =
        app.add_subcommand("eval", "NLL and perplexity of a checkpoint on a text, or its accuracy on multiple choice");
    add_checkpoint_option(*command, flags->model);
    add_ignore_unused_option(*command, context.ignore_unused);
    add_token_options(*command, flags->tokens);
    add_window_options(*command, flags->windows);
    add_kv_cache_options(*command, flags->cache,
                         "none, all of a window at once in float32; with --choices that of the weights");
    command
        ->add_option("--choices", flags->choices,
                     "Multiple choice instead of a text: JSON Lines with query, choices and gold, or see --task")
        ->type_name("FILE")
        ->excludes("--text")
        ->excludes("--tokens");
    command->get_option("--tokenizer")->remove_needs(command->get_option("--text"));  // --choices reads text too
    add_choice(*command, "--task", flags->task, choice_tasks(), &ChoiceTask::name,
               "Published data set whose JSON Lines --choices holds as they come; items: query, choices, gold")
        ->needs("--choices");
    document_rules(*command, kEvalRules);
    add_threads_option(*command, context);
    add_json_option(*command, flags->json);
    set_footer(*command, "",
               {{"", "mha2mla eval ./model --text wiki.txt --context 2048"},
                {"quicker, for scripts", "mha2mla eval ./model-mla --text wiki.txt --max-windows 16 --json"},
                {"multiple choice", "mha2mla eval ./model --choices hellaswag_val.jsonl --task hellaswag"}});
    command->callback([flags, &context] { run(*flags, context); });
}

}  // namespace mha2mla::tool
