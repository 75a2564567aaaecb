#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <memory>

#include "calibration_run.hpp"
#include "commands.hpp"
#include "mha2mla/convert.hpp"
#include "mha2mla/error.hpp"
#include "mha2mla/evaluate.hpp"
#include "mha2mla/threads.hpp"
#include "output.hpp"

namespace mha2mla::tool {
namespace {

struct SigmaRow {
    SigmaPlacement sigma;
    std::string_view name;
};
constexpr std::array<SigmaRow, 3> kSigmas = {
    {{SigmaPlacement::balanced, "balanced"}, {SigmaPlacement::up, "up"}, {SigmaPlacement::down, "down"}}};

struct MethodRow {
    SvdMethod method;
    std::string_view name;
};
constexpr std::array<MethodRow, 3> kMethods = {
    {{SvdMethod::standard, "standard"}, {SvdMethod::strict, "strict"}, {SvdMethod::fast, "fast"}}};

/// Of the whole output; nothing: each tensor keeps its own.
struct OutputDtypeRow {
    std::optional<Dtype> dtype;
    std::string_view name;
};
constexpr std::array<OutputDtypeRow, 4> kOutputDtypes = {
    {{std::nullopt, "auto"}, {Dtype::f32, "f32"}, {Dtype::f16, "f16"}, {Dtype::bf16, "bf16"}}};

/// Of the text that a layer is aligned on: longer sequences cost more and teach little.
constexpr std::int64_t kAlignSeqLen = 512;

struct ConvertFlags {
    std::filesystem::path source, destination, stats, rank_file;
    std::string rope = "2-norm";
    std::int64_t uniform_start = 0;
    LatentFlags latent;
    SvdOptions svd;
    std::optional<Dtype> dtype;
    std::uint64_t max_shard_bytes = 5'000'000'000;
    TokenOptions calibration;
    SampleFlags samples;
    std::optional<double> kv_reduction;
    std::string_view quality = align_qualities().front().name;
    bool overwrite = false, dry_run = false, json = false;
};

ConvertOptions to_options(const ConvertFlags& flags, const ModelConfig& config, const Context& context) {
    ConvertOptions options;
    options.rope = {flags.rope, flags.latent.rope_dim.value_or(default_rope_dim(config)), flags.uniform_start};
    options.kv_rank = flags.latent.kv_rank.value_or(default_kv_rank(config));
    options.factorization = flags.latent.factorization;
    options.svd = flags.svd;
    options.dtype = flags.dtype;
    options.max_shard_bytes = flags.max_shard_bytes;
    options.overwrite = flags.overwrite;
    options.max_memory = context.max_memory;
    return options;
}

/// Options that would have no effect are mistakes worth telling.
void check_flags(const ConvertFlags& flags, Context& context) {
    const int sources = int(!flags.stats.empty()) + int(!flags.rank_file.empty()) + int(flags.calibration.given());
    const bool needs_ranks = find_rope_strategy(flags.rope).needs_ranks;
    if (needs_ranks && sources == 0) {
        throw Error(
            ErrorCode::usage,
            "--rope " + flags.rope +
                " needs query and key norms: give --calibration-text FILE, --calibration-tokens FILE, "
                "--stats FILE (from calibrate) or --rank-file FILE; or choose --rope uniform, which needs none");
    }
    if (sources > 1) {
        throw Error(ErrorCode::usage,
                    "give only one of --stats, --rank-file, --calibration-text and --calibration-tokens");
    }
    if (!needs_ranks && sources > 0) {
        context.observer.warn("--rope " + flags.rope + " needs no statistics; those given are not used");
    }
    if (flags.samples.given() && !flags.calibration.given()) {
        throw Error(ErrorCode::usage,
                    "--samples and --seq-len only go with --calibration-text or --calibration-tokens");
    }
    if (flags.uniform_start != 0 && flags.rope != "uniform") {
        throw Error(ErrorCode::usage, "--uniform-start only goes with --rope uniform");
    }
    if (flags.latent.factorization == Factorization::none && flags.latent.kv_rank) {
        context.observer.warn("--kv-rank has no effect with --svd none");
    }
}

std::optional<PairRanks> load_ranks(const ConvertFlags& flags, const Model& model, Context& context) {
    if (!find_rope_strategy(flags.rope).needs_ranks) return std::nullopt;
    if (!flags.rank_file.empty()) return read_rank_file(flags.rank_file);
    if (!flags.stats.empty()) {
        const CalibrationStats stats = load_stats(flags.stats);
        check_stats_fit(stats, model.config, flags.stats.string());
        return two_norm_ranks(stats);
    }
    const std::int64_t rope_dim = flags.latent.rope_dim.value_or(default_rope_dim(model.config));
    return two_norm_ranks(run_calibration(model, flags.calibration, flags.samples, rope_dim, context));
}

void print_report(const ConvertFlags& flags, const ConvertOptions& options, const Plan& plan,
                  const ConvertReport* report) {
    if (flags.json) {
        auto json = plan_json(plan, 16);
        json["rope"] = options.rope.strategy;
        json["rope_dim"] = options.rope.rope_dim;
        json["kv_rank"] = options.kv_rank;
        json["svd"] = row_of(options.factorization).name;
        if (report != nullptr) {
            json["retained_energy"] = report->retained_energy;
            json["output"] = flags.destination.string();
            json["output_bytes"] = report->output_bytes;
        }
        print_json(json);
        return;
    }
    std::vector<std::pair<std::string, std::string>> rows = {
        {report == nullptr ? "would convert" : "converted",
         flags.source.string() + " -> " + flags.destination.string()},
        {"method", options.rope.strategy + " selection, rope-dim " + std::to_string(options.rope.rope_dim) + ", " +
                       std::string(row_of(options.factorization).name) + " SVD, kv-rank " +
                       std::to_string(options.kv_rank)},
        {"parameters", human_count(plan.parameters_original) + " -> " + human_count(plan.parameters_converted)},
        {"KV cache per token", human_bytes(plan.original_bytes_per_token) + " -> " +
                                   human_bytes(plan.converted_bytes_per_token) + " bytes at 16 bit, " +
                                   human_reduction(plan.reduction())},
    };
    if (report != nullptr && !report->retained_energy.empty() && options.factorization != Factorization::none) {
        const auto [low, high] = std::minmax_element(report->retained_energy.begin(), report->retained_energy.end());
        rows.emplace_back("energy kept by the SVD",
                          fixed(100 * *low, 2) + "% to " + fixed(100 * *high, 2) + "% by layer");
    }
    if (report != nullptr && !report->alignment_error.empty()) {
        const auto [low, high] = std::minmax_element(report->alignment_error.begin(), report->alignment_error.end());
        rows.emplace_back("error left", fixed(*low, 5) + " to " + fixed(*high, 5) + " of a hidden state, by layer");
    }
    print_table(rows);
}

/// Windows of calibration text as `eval` cuts them, so that the first tokens of a sequence are aligned too.
std::vector<TokenId> load_align_windows(const ConvertFlags& flags, const Model& model, std::int64_t& seq_len) {
    if (!flags.calibration.given()) {
        throw Error(ErrorCode::usage,
                    "--kv-reduction chooses by text: give --calibration-text FILE or --calibration-tokens FILE");
    }
    seq_len = flags.samples.seq_len.value_or(std::min(kAlignSeqLen, model.config.max_position_embeddings));
    const std::int64_t most =
        std::max<std::int64_t>(1, align_tokens(model.config, find_align_quality(flags.quality)) / seq_len);
    const std::int64_t windows = flags.samples.samples.value_or(most);
    return make_windows(model.config, load_tokens(flags.calibration, model, windows * seq_len), {seq_len, windows});
}

void run_aligned(const ConvertFlags& flags, const Model& model, Context& context) {
    std::int64_t seq_len = 0;
    const auto windows = load_align_windows(flags, model, seq_len);
    check_destination(model, flags.destination, flags.overwrite);
    const AlignOptions asked{*flags.kv_reduction, flags.latent.rope_dim, flags.latent.kv_rank,
                             find_align_quality(flags.quality)};
    Aligner aligner(model, windows, seq_len, asked, context.observer);
    for (const Split& split : aligner.tried()) {
        spdlog::info("rope-dim {} with kv-rank {}: error {:.6f}{}", split.rope_dim, split.kv_rank, split.error,
                     split.rope_dim == aligner.chosen().rope_dim ? ", chosen" : "");
    }
    ConvertOptions options = to_options(flags, model.config, context);
    options.rope = {"attention", aligner.chosen().rope_dim, 0};
    options.kv_rank = aligner.chosen().kv_rank;
    options.aligner = &aligner;
    const ConvertReport report = convert(model, flags.destination, options, nullptr, context.observer);
    print_report(flags, options, report.plan, &report);
}

void run(const ConvertFlags& flags, Context& context) {
    if (!flags.kv_reduction) check_flags(flags, context);
    const ThreadScope threads(context.threads);
    const Model model = Model::open(flags.source);
    if (flags.kv_reduction) return run_aligned(flags, model, context);
    const ConvertOptions options = to_options(flags, model.config, context);
    // Impossible options and an existing output are reported before a long calibration, not after it.
    const Plan plan =
        plan_conversion(model.config, {options.rope.rope_dim, options.kv_rank, options.factorization, 16});
    check_destination(model, flags.destination, options.overwrite);
    if (flags.dry_run) return print_report(flags, options, plan, nullptr);
    const auto ranks = load_ranks(flags, model, context);
    const ConvertReport report =
        convert(model, flags.destination, options, ranks ? &*ranks : nullptr, context.observer);
    print_report(flags, options, report.plan, &report);
}

}  // namespace

void add_convert(CLI::App& app, Context& context) {
    auto flags = std::make_shared<ConvertFlags>();
    auto* command = app.add_subcommand("convert", "Convert a checkpoint to MLA");
    add_checkpoint_option(*command, flags->source, "source", "Checkpoint directory to convert");
    add_checkpoint_option(*command, flags->destination, "destination", "Directory to create");
    std::string help = "Which rotary pairs of a head keep RoPE:";
    for (const auto& row : rope_strategies()) help += "\n  " + std::string(row.name) + ": " + std::string(row.good_for);
    add_choice(*command, "--rope", flags->rope, rope_strategies(), &RopeStrategy::name, help);
    command->add_option("--uniform-start", flags->uniform_start, "First pair of --rope uniform")
        ->check(in_range(0, 1 << 16))
        ->type_name("N")
        ->capture_default_str();
    add_latent_options(*command, flags->latent);
    add_choice(*command, "--sigma", flags->svd.sigma, kSigmas, &SigmaRow::sigma,
               "Which factor takes the singular values; the product is the same");
    add_choice(*command, "--svd-method", flags->svd.method, kMethods, &MethodRow::method,
               "How close the error of the SVD comes to the least possible one of its rank:\n"
               "  standard: within 1e-5 of it, as precise as float32 weights deserve\n"
               "  strict: within 1e-9, in double, in twice the time and memory\n"
               "  fast: within --svd-excess, quicker where the rank is small");
    command->add_option("--svd-excess", flags->svd.max_excess, "Relative excess error that --svd-method fast may leave")
        ->check(CLI::Range(1e-6, 1.0).description(""))
        ->type_name("X")
        ->capture_default_str();
    command
        ->add_option(
            "--kv-reduction", flags->kv_reduction,
            "Share of the KV cache to save, such as 0.6875: rotary pairs, rope-dim, kv-rank and all weights of\n"
            "the attention are chosen so that each layer computes what it did on your text")
        ->check(CLI::Range(0.0, 1.0).description(""))
        ->type_name("X");
    add_choice(*command, "--quality", flags->quality, align_qualities(), &AlignQuality::name,
               "What --kv-reduction takes time for");
    add_token_options(*command, flags->calibration, "calibration-");
    add_sample_options(*command, flags->samples);
    command->add_option("--stats", flags->stats, "Statistics that calibrate wrote, instead of calibration text")
        ->type_name("FILE");
    command
        ->add_option("--rank-file", flags->rank_file,
                     "Rank file of the reference implementation (.pth), instead of text")
        ->type_name("FILE");
    add_choice(*command, "--dtype", flags->dtype, kOutputDtypes, &OutputDtypeRow::dtype,
               "dtype of the output; auto keeps each tensor's");
    add_size(*command, "--max-shard-size", flags->max_shard_bytes, "Largest weight file, such as 5GB or 500MiB")
        ->default_str("5GB");
    command->add_flag("--overwrite", flags->overwrite, "Replace a destination that holds files");
    command->add_flag("--dry-run", flags->dry_run, "Check everything and print what would be done");
    add_threads_option(*command, context);
    add_size(*command, "--max-memory", context.max_memory,
             "Private memory that the run may take, such as 8GB: more lets it convert more layers at once;\n"
             "default: two layers' attention matrices in float32 and 200 MB");
    add_json_option(*command, flags->json);
    command->footer(
        "The defaults are the paper's: 2-norm selection, joint SVD, a cache smaller by 68.75%.\n"
        "Example: mha2mla convert ./model ./model-mla --calibration-text corpus.txt");
    command->callback([flags, &context] { run(*flags, context); });
}

}  // namespace mha2mla::tool
