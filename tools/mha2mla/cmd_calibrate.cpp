#include <spdlog/spdlog.h>

#include <memory>

#include "calibration_run.hpp"
#include "commands.hpp"
#include "mha2mla/atomic_file.hpp"
#include "mha2mla/error.hpp"
#include "mha2mla/plan.hpp"
#include "mha2mla/rope.hpp"
#include "mha2mla/threads.hpp"
#include "output.hpp"

namespace mha2mla::tool {

namespace {

/// The largest number of sequences for `--samples auto`.
constexpr std::int64_t kMostSamples = 16 * SampleFlags::kDefaultSamples;

CalibrationStats calibrate_until_settled(const Model& model, std::span<const TokenId> ids, std::int64_t seq_len,
                                         std::int64_t rope_dim, const CalibrationOptions& options, Context& context) {
    SelectionWatch watch(rope_dim);
    const auto settled = [&](const CalibrationStats& stats) { return watch.add(stats); };
    CalibrationStats stats = calibrate_in_rounds(model, ids, seq_len, context.observer, settled, options);
    stats.settling = {rope_dim, watch.unsettled_layers()};
    const std::string where =
        " for rope-dim " + std::to_string(rope_dim) + " after " + std::to_string(stats.sequences) + " sequences";
    if (watch.unsettled_layers() == 0) {
        spdlog::info("the 2-norm selection settled{}", where);
    } else {
        context.observer.warn("the 2-norm selection of " + std::to_string(watch.unsettled_layers()) + " of " +
                              std::to_string(stats.layers) + " layers had not settled" + where +
                              ", which is all there is; give more text if you can");
    }
    return stats;
}

}  // namespace

CalibrationStats run_calibration(const Model& model, const TokenOptions& tokens, const SampleFlags& samples,
                                 std::int64_t rope_dim, const Gathered& gather, Context& context) {
    check_rope_dim(model.config, rope_dim);
    const std::int64_t trained = model.config.max_position_embeddings;
    const std::int64_t seq_len = samples.seq_len.value_or(std::min<std::int64_t>(2048, trained));
    if (seq_len > trained) {
        context.observer.warn("--seq-len " + std::to_string(seq_len) + " is longer than the model's " +
                              std::to_string(trained) + " positions");
    }
    const std::int64_t wanted =
        samples.until_settled ? kMostSamples : samples.samples.value_or(SampleFlags::kDefaultSamples);
    auto ids = load_tokens(tokens, model, wanted * seq_len);
    const auto available = static_cast<std::int64_t>(ids.size()) / seq_len;
    if (available == 0) {
        throw Error(ErrorCode::usage, tokens.name() + ": " + std::to_string(ids.size()) +
                                          " tokens are less than one sequence of " + std::to_string(seq_len) +
                                          "; give more text or a smaller --seq-len");
    }
    if (available < wanted && !samples.until_settled) {
        context.observer.warn(tokens.name() + " has only " + std::to_string(available) + " sequences of " +
                              std::to_string(seq_len) + " tokens, not " + std::to_string(wanted));
    }
    ids.resize(static_cast<std::size_t>(available * seq_len));
    const CalibrationOptions options{
        .max_memory = context.max_memory, .spill_directory = {}, .inputs = gather.inputs()};
    CalibrationStats stats = samples.until_settled
                                 ? calibrate_until_settled(model, ids, seq_len, rope_dim, options, context)
                                 : calibrate(model, ids, seq_len, context.observer, options);
    stats.model = model.checkpoint.directory().string();
    stats.data = tokens.name();
    if (gather.attention_order) add_attention_ranks(model, stats, context.observer);
    return stats;
}

namespace {

struct CalibrateFlags {
    std::filesystem::path model, output, rank_file;
    TokenOptions tokens;
    SampleFlags samples;
    std::optional<std::int64_t> rope_dim;
    Gathered gather;
    bool json = false;
};

void run(const CalibrateFlags& flags, Context& context) {
    if (flags.output.empty() && flags.rank_file.empty()) {
        throw Error(ErrorCode::usage, "nothing to write; give --output STATS.safetensors or --rank-file RANKS.pth");
    }
    if (flags.output.empty() && (flags.gather.moments || flags.gather.attention_order)) {
        throw Error(ErrorCode::usage, "--moments and --attention-order go into the statistics: give --output FILE");
    }
    if (flags.rope_dim && !flags.samples.until_settled) {
        throw Error(ErrorCode::usage, "--rope-dim only goes with --samples auto; statistics serve every rope-dim");
    }
    const ThreadScope threads(context.threads);
    const Model model = Model::open(flags.model);
    const CalibrationStats stats =
        run_calibration(model, flags.tokens, flags.samples, flags.rope_dim.value_or(default_rope_dim(model.config)),
                        flags.gather, context);
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
        json["attention_order"] = flags.gather.attention_order;
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
    add_token_options(*command, flags->tokens);
    add_sample_options(*command, flags->samples, false);
    command
        ->add_option("--rope-dim", flags->rope_dim,
                     "The selection that --samples auto watches; default: head_dim/8, at least 2")
        ->type_name("N")
        ->group(kText);
    command->option_defaults()->group(kMethod);
    command->add_flag("--attention-order", flags->gather.attention_order,
                      "Also rank rotary pairs by what the attention's output loses without their rotation, for "
                      "convert --rope attention: on 2048 tokens, about pairs*pairs/2 attentions of each head");
    command->add_flag("--moments", flags->gather.moments,
                      "Also gather the second moment of each layer's input, and 2048 tokens of it, for "
                      "convert --svd whitened: 4*hidden*hidden + 8192*hidden bytes on disk for each layer");
    command->option_defaults()->group(kOutput);
    command->add_option("-o,--output", flags->output, "Statistics file to write, for convert --stats")
        ->type_name("FILE");
    command->add_option("--rank-file", flags->rank_file, "Also write the reference implementation's rank file (.pth)")
        ->type_name("FILE");
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
