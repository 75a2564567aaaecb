#include <memory>

#include "commands.hpp"
#include "mha2mla/atomic_file.hpp"
#include "mha2mla/error.hpp"
#include "mha2mla/plan.hpp"
#include "mha2mla/rope.hpp"
#include "mha2mla/statistics.hpp"
#include "mha2mla/threads.hpp"
#include "options.hpp"
#include "output.hpp"
#include "output_paths.hpp"

namespace mha2mla::tool {

namespace {

struct CalibrateFlags {
    std::filesystem::path model, output, rank_file;
    TextSource tokens;
    SampleOptions samples;
    std::optional<std::int64_t> rope_dim;
    StatisticSet gather;
    bool json = false, overwrite = false;
};

void run(const CalibrateFlags& flags, Context& context) {
    if (flags.output.empty() && flags.rank_file.empty()) {
        throw Error(ErrorCode::usage, "nothing to write; give --output STATS.safetensors or --rank-file RANKS.pth");
    }
    if (flags.output.empty() && (flags.gather.moments || !flags.gather.orders.empty())) {
        throw Error(ErrorCode::usage,
                    "--moments and " + order_options(" and ") + " go into the statistics: give --output FILE");
    }
    if (flags.rope_dim && !flags.samples.until_settled) {
        throw Error(ErrorCode::usage, "--rope-dim only goes with --samples auto; statistics serve every rope-dim");
    }
    std::vector<OutputPath> outputs;
    if (!flags.output.empty()) outputs.push_back({"--output", flags.output, "mha2mla statistics"});
    if (!flags.rank_file.empty()) outputs.push_back({"--rank-file", flags.rank_file, "2_norm_rank/data"});
    const TextSource& text = flags.tokens;
    check_output_paths(outputs, {flags.model, text.text, text.tokens, text.tokenizer}, flags.overwrite);
    const ThreadScope threads(context.threads);
    const Model model = open_model(flags.model, context.ignore_unused, context);
    const CalibrationStats stats =
        calibrate_on_text(model, flags.tokens, flags.samples, flags.rope_dim.value_or(default_rope_dim(model.config)),
                          flags.gather, context.max_memory, context.observer);
    log_settling(stats.settling, stats.sequences);
    if (!flags.output.empty()) save_stats(flags.output, stats);
    if (!flags.rank_file.empty()) write_file_atomically(flags.rank_file, rank_file_bytes(two_norm_ranks(stats)));
    if (flags.json) {
        nlohmann::ordered_json json;
        json["sequences"] = stats.sequences;
        json["seq_len"] = stats.seq_len;
        json["tokens"] = stats.sequences * stats.seq_len;
        if (stats.settling) {
            json["settled"] = stats.settling->unsettled_layers == 0;
            json["unsettled_layers"] = stats.settling->unsettled_layers;
            json["rope_dim"] = stats.settling->rope_dim;
        }
        for (const RopeStrategy& strategy : rope_strategies()) {
            const PairOrder& order = strategy.order;
            if (!strategy.goes_by_order()) continue;
            json[std::string(order.statistic) + "_order"] = flags.gather.orders.contains(order.statistic);
        }
        json["moments"] = flags.gather.moments;
        if (!flags.output.empty()) json["output"] = flags.output.string();
        if (!flags.rank_file.empty()) json["rank_file"] = flags.rank_file.string();
        print_json(json);
        return;
    }
    std::vector<std::pair<std::string, std::string>> rows = {
        {"calibrated on",
         std::to_string(stats.sequences) + " sequences of " + std::to_string(stats.seq_len) + " tokens"}};
    if (stats.settling) {
        rows.emplace_back("selection settled", std::to_string(stats.layers - stats.settling->unsettled_layers) +
                                                   " of " + std::to_string(stats.layers) + " layers, rope-dim " +
                                                   std::to_string(stats.settling->rope_dim));
    }
    if (!flags.output.empty()) rows.emplace_back("statistics", flags.output.string());
    if (!flags.rank_file.empty()) rows.emplace_back("rank file", flags.rank_file.string());
    print_table(rows);
}

}  // namespace

void add_calibrate(CLI::App& app, Context& context) {
    auto flags = std::make_shared<CalibrateFlags>();
    auto* command = app.add_subcommand(
        "calibrate", "Gather statistics of queries, keys and layer inputs by running text through the model");
    add_checkpoint_option(*command, flags->model);
    add_ignore_unused_option(*command, context.ignore_unused);
    add_token_options(*command, flags->tokens);
    add_sample_options(*command, flags->samples, false);
    command
        ->add_option("--rope-dim", flags->rope_dim,
                     "The rope-dim whose selection --samples auto watches; default: head_dim/8, at least 2")
        ->type_name("N")
        ->group(kText);
    command->option_defaults()->group(kMethod);
    for (const RopeStrategy& strategy : rope_strategies()) {
        if (!strategy.goes_by_order()) continue;
        const PairOrder& order = strategy.order;
        command->add_flag_callback(
            order_option(order), [flags, name = std::string(order.statistic)] { flags->gather.orders.insert(name); },
            "Also rank rotary pairs by " + std::string(order.by) + ", for convert --rope " +
                std::string(strategy.name) + ": on " + std::to_string(kSampleTokens) + " tokens, " +
                std::string(order.cost));
    }
    command->add_flag("--moments", flags->gather.moments,
                      "Also gather the second moment of each layer's input, and 2048 tokens of it, for "
                      "convert --svd whitened: 4*hidden*hidden + 8192*hidden bytes on disk for each layer");
    command->option_defaults()->group(kOutput);
    command->add_option("-o,--output", flags->output, "Statistics file to write, for convert --stats")
        ->type_name("FILE");
    command->add_option("--rank-file", flags->rank_file, "Also write the reference implementation's rank file (.pth)")
        ->type_name("FILE");
    command->add_flag("--overwrite", flags->overwrite,
                      "Replace files that exist, also those that calibrate did not write");
    add_threads_option(*command, context);
    add_max_memory_option(*command, context);
    add_json_option(*command, flags->json);
    set_footer(*command, "",
               {{"", "mha2mla calibrate ./model --text corpus.txt --samples 128 --output stats.safetensors"},
                {"for --rope attention and --svd whitened too",
                 "mha2mla calibrate ./model --text corpus.txt --attention-order --moments -o stats.safetensors"},
                {"as many sequences as the selection needs, and a rank file for the reference implementation",
                 "mha2mla calibrate ./model --text corpus.txt --samples auto --rank-file 2_norm_rank.pth"},
                {"a model without a tokenizer.json",
                 "mha2mla calibrate ./model --tokens corpus.u16 --output stats.safetensors"}});
    command->callback([flags, &context] { run(*flags, context); });
}

}  // namespace mha2mla::tool
