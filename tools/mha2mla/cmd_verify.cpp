#include <spdlog/spdlog.h>

#include <memory>

#include "commands.hpp"
#include "mha2mla/evaluate.hpp"
#include "mha2mla/plan.hpp"
#include "mha2mla/threads.hpp"
#include "options.hpp"
#include "output.hpp"

namespace mha2mla::tool {
namespace {

constexpr int kThresholdMissed = 3;

struct VerifyFlags {
    std::filesystem::path source, destination;
    TextSource tokens;
    WindowFlags windows;
    std::optional<double> max_kl;
    bool json = false;
};

void print_result(const VerifyFlags& flags, const VerifyResult& result, double bytes_before, double bytes_after) {
    const double reduction = 1 - bytes_after / bytes_before;
    if (flags.json) {
        nlohmann::ordered_json json = verify_json(result);
        json["kv_cache"] = {{"original_bytes_per_token", number(bytes_before)},
                            {"converted_bytes_per_token", number(bytes_after)},
                            {"reduction", reduction}};
        print_json(json);
        return;
    }
    print_table({
        {"NLL", fixed(result.nll_original) + " -> " + fixed(result.nll_converted) + " nats per token"},
        {"perplexity", fixed(std::exp(result.nll_original), 3) + " -> " + fixed(std::exp(result.nll_converted), 3)},
        {"KL(original || converted)", fixed(result.mean_kl, 6) + " nats per token"},
        {"largest logit difference", fixed(result.max_logit_difference, 6)},
        {"KV cache per token", human_bytes(bytes_before) + " -> " + human_bytes(bytes_after) + " bytes at 16 bit, " +
                                   human_reduction(reduction)},
        {"scored", std::to_string(result.tokens) + " tokens in " + std::to_string(result.windows) + " windows of " +
                       std::to_string(result.context)},
    });
}

void run(const VerifyFlags& flags, Context& context) {
    const ThreadScope threads(context.threads);
    const Model original = open_model(flags.source, context.ignore_unused, context);
    const Model converted = open_model(flags.destination, context.ignore_unused, context);
    std::int64_t window_length = 0;
    const auto windows = load_windows(flags.tokens, flags.windows, original, context, window_length);
    const VerifyResult result = verify(original, converted, windows, window_length, context.observer);
    print_result(flags, result, 2.0 * static_cast<double>(cache_numbers_per_token(original.config)),
                 2.0 * static_cast<double>(cache_numbers_per_token(converted.config)));
    if (flags.max_kl && result.mean_kl > *flags.max_kl) {
        flush_stdout();
        spdlog::error("mean KL {:.6f} exceeds --max-kl {}", result.mean_kl, *flags.max_kl);
        throw ExitWith{kThresholdMissed};
    }
}

}  // namespace

void add_verify(CLI::App& app, Context& context) {
    auto flags = std::make_shared<VerifyFlags>();
    auto* command = app.add_subcommand("verify", "Distance of a converted checkpoint from its original on a text");
    add_checkpoint_option(*command, flags->source, "source", "The original checkpoint");
    add_checkpoint_option(*command, flags->destination, "converted", "The converted checkpoint");
    add_ignore_unused_option(*command, context.ignore_unused);
    add_token_options(*command, flags->tokens);
    add_window_options(*command, flags->windows);
    command
        ->add_option("--max-kl", flags->max_kl, "Exit with 3 if the mean KL divergence exceeds this, in nats per token")
        ->check(number_in(0))
        ->type_name("NATS");
    add_threads_option(*command, context);
    add_json_option(*command, flags->json);
    set_footer(*command, "",
               {{"", "mha2mla verify ./model ./model-mla --text wiki.txt --max-windows 64"},
                {"as a check in a script: exit code 3 if it is too far off",
                 "mha2mla verify ./model ./model-mla --text wiki.txt --max-windows 64 --max-kl 0.5"}});
    command->callback([flags, &context] { run(*flags, context); });
}

}  // namespace mha2mla::tool
