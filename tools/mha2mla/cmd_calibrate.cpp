#include <memory>

#include "commands.hpp"
#include "mha2mla/error.hpp"
#include "mha2mla/plan.hpp"
#include "mha2mla/rope.hpp"
#include "mha2mla/statistics.hpp"
#include "mha2mla/threads.hpp"
#include "options.hpp"
#include "output.hpp"
#include "stats_output.hpp"

namespace mha2mla::tool {

namespace {

struct CalibrateFlags {
    std::filesystem::path model;
    StatsOutput output;
    TextSource tokens;
    SampleOptions samples;
    std::optional<std::int64_t> rope_dim;
    StatisticSet gather;
    bool json = false;
};

void check_together(const CalibrateFlags& flags) {
    const StatsOutput& output = flags.output;
    const bool in_shards = flags.samples.shard.has_value();
    if (output.output.empty() && (flags.gather.moments || !flags.gather.orders.empty())) {
        throw Error(ErrorCode::usage,
                    "--moments and " + order_options(" and ") + " go into the statistics: give --output FILE");
    }
    if (flags.rope_dim && !flags.samples.until_settled) {
        throw Error(ErrorCode::usage, "--rope-dim only goes with --samples auto; statistics serve every rope-dim");
    }
    if (in_shards && (output.output.empty() || !output.rank_file.empty())) {
        throw Error(ErrorCode::usage,
                    "--shard makes a part of the statistics: give --output FILE, and --rank-file to calibrate merge");
    }
    if (in_shards && flags.samples.until_settled) {
        throw Error(ErrorCode::usage, "--shard is a part of a number of sequences: give --samples N instead of auto");
    }
}

void run(const CalibrateFlags& flags, Context& context) {
    const TextSource& text = flags.tokens;
    check_together(flags);
    flags.output.check({flags.model, text.text, text.tokens, text.tokenizer});
    const ThreadScope threads(context.threads);
    const Model model = open_model(flags.model, context.ignore_unused, context);
    const CalibrationStats stats =
        calibrate_on_text(model, flags.tokens, flags.samples, flags.rope_dim.value_or(default_rope_dim(model.config)),
                          flags.gather, context.max_memory, context.observer);
    log_settling(stats.settling, stats.sequences);
    flags.output.write(stats, context.observer);
    if (flags.json) {
        nlohmann::ordered_json json;
        StatsOutput::describe(stats, json);
        if (stats.part) json["shard"] = stats.part->shard.text();
        if (stats.settling) {
            json["settled"] = stats.settling->unsettled_layers == 0;
            json["unsettled_layers"] = stats.settling->unsettled_layers;
            json["rope_dim"] = stats.settling->rope_dim;
        }
        for (const RopeStrategy& strategy : rope_strategies()) {
            const PairOrder& order = strategy.order;
            if (!strategy.goes_by_order()) continue;
            json[std::string(order.statistic) + "_order"] = stats.orders.contains(order.statistic);
        }
        json["moments"] = flags.gather.moments;
        flags.output.describe_files(json);
        print_json(json);
        return;
    }
    StatsOutput::Rows rows;
    StatsOutput::describe(stats, rows);
    if (stats.part) rows.emplace_back("shard", stats.part->shard.text() + ", for calibrate merge");
    if (stats.settling) {
        rows.emplace_back("selection settled", std::to_string(stats.layers - stats.settling->unsettled_layers) +
                                                   " of " + std::to_string(stats.layers) + " layers, rope-dim " +
                                                   std::to_string(stats.settling->rope_dim));
    }
    flags.output.describe_files(rows);
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
    add_shard_option(
        *command, [flags](const Shard& shard) { flags->samples.shard = shard; },
        "Only the I-th of N equal parts of the sequences, for several machines; calibrate merge puts the files "
        "together")
        ->group(kText);
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
    flags->output.add_options(*command);
    add_threads_option(*command, context);
    add_max_memory_option(*command, context);
    add_json_option(*command, flags->json);
    set_footer(*command, "",
               {{"", "mha2mla calibrate ./model --text corpus.txt --samples 128 --output stats.safetensors"},
                {"for --rope attention and --svd whitened too",
                 "mha2mla calibrate ./model --text corpus.txt --attention-order --moments -o stats.safetensors"},
                {"as many sequences as the selection needs, and a rank file for the reference implementation",
                 "mha2mla calibrate ./model --text corpus.txt --samples auto --rank-file 2_norm_rank.pth"},
                {"the second of eight machines; calibrate merge is for their files",
                 "mha2mla calibrate ./model --text corpus.txt --moments --shard 2/8 -o part-2.safetensors"},
                {"a model without a tokenizer.json",
                 "mha2mla calibrate ./model --tokens corpus.u16 --output stats.safetensors"}});
    command->callback([flags, &context] { run(*flags, context); });
}

}  // namespace mha2mla::tool
