#include <memory>

#include "commands.hpp"
#include "mha2mla/evaluate.hpp"
#include "mha2mla/plan.hpp"
#include "mha2mla/threads.hpp"
#include "options.hpp"
#include "output.hpp"

namespace mha2mla::tool {
namespace {

struct EvalFlags {
    std::filesystem::path model;
    TokenOptions tokens;
    WindowFlags windows;
    bool json = false;
};

void run(const EvalFlags& flags, Context& context) {
    const ThreadScope threads(context.threads);
    const Model model = Model::open(flags.model);
    std::int64_t window_length = 0;
    const auto windows = load_windows(flags.tokens, flags.windows, model, context, window_length);
    const EvalResult result = evaluate(model, windows, window_length, context.observer);
    const double cache_bytes = 2.0 * static_cast<double>(cache_numbers_per_token(model.config));
    if (flags.json) {
        nlohmann::ordered_json json;
        json["nll"] = result.nll;
        json["perplexity"] = result.perplexity();
        json["tokens"] = result.tokens;
        json["windows"] = result.windows;
        json["context"] = result.context;
        json["kv_cache_bytes_per_token"] = number(cache_bytes);
        print_json(json);
        return;
    }
    print_table({
        {"NLL", fixed(result.nll) + " nats per token"},
        {"perplexity", fixed(result.perplexity(), 3)},
        {"scored", std::to_string(result.tokens) + " tokens in " + std::to_string(result.windows) + " windows of " +
                       std::to_string(result.context)},
        {"KV cache per token", human_bytes(cache_bytes) + " bytes at 16 bit"},
    });
}

}  // namespace

void add_eval(CLI::App& app, Context& context) {
    auto flags = std::make_shared<EvalFlags>();
    auto* command = app.add_subcommand("eval", "NLL and perplexity of a checkpoint on a text");
    add_checkpoint_option(*command, flags->model);
    add_token_options(*command, flags->tokens);
    add_window_options(*command, flags->windows);
    add_threads_option(*command, context);
    add_json_option(*command, flags->json);
    set_footer(*command, "",
               {{"", "mha2mla eval ./model --text wiki.txt --context 2048"},
                {"quicker, for scripts", "mha2mla eval ./model-mla --text wiki.txt --max-windows 16 --json"}});
    command->callback([flags, &context] { run(*flags, context); });
}

}  // namespace mha2mla::tool
