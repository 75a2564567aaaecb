#include <spdlog/spdlog.h>

#include <algorithm>
#include <memory>
#include <sstream>

#include "commands.hpp"
#include "conversion.hpp"
#include "convert_settings.hpp"
#include "mha2mla/error.hpp"
#include "mha2mla/evaluate.hpp"
#include "mha2mla/fingerprint.hpp"
#include "mha2mla/threads.hpp"
#include "output.hpp"

namespace mha2mla::tool {
namespace {

/// Of the text that a layer is aligned on: longer sequences cost more and teach little.
constexpr std::int64_t kAlignSeqLen = 512;

struct AlignFlags {
    std::optional<double> kv_reduction;
    std::string_view quality = align_qualities().front().name;
};

void print_report(const ConvertFlags& flags, const ConvertOptions& options, const Plan& plan,
                  const ConvertReport* report, bool as_json) {
    const auto measured = report == nullptr ? nlohmann::ordered_json() : measurement_at(flags.destination);
    if (as_json) {
        auto json = plan_json(plan, 16);
        json["rope"] = options.rope.strategy;
        json["rope_dim"] = options.rope.rope_dim;
        json["kv_rank"] = options.kv_rank;
        json["svd"] = row_of(options.factorization).name;
        if (report != nullptr) {
            json["retained_energy"] = report->retained_energy;
            if (!report->alignment_error.empty()) json["alignment_error"] = report->alignment_error;
            json["output"] = flags.destination.string();
            json["output_bytes"] = report->output_bytes;
            json["already_finished"] = report->already_finished;
            json["pieces"] = report->pieces;
            json["pieces_resumed"] = report->pieces_resumed;
            json["measured"] = measured;
        }
        print_json(json);
        return;
    }
    std::vector<std::pair<std::string, std::string>> rows = {
        {report == nullptr          ? "would convert"
         : report->already_finished ? "already converted"
                                    : "converted",
         flags.source.string() + " -> " + flags.destination.string()},
        {"method", options.rope.strategy + " selection, rope-dim " + std::to_string(options.rope.rope_dim) + ", " +
                       (options.aligner != nullptr ? "weights aligned on text"
                                                   : std::string(row_of(options.factorization).name) + " SVD") +
                       ", kv-rank " + std::to_string(options.kv_rank)},
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
    if (report != nullptr && report->pieces_resumed > 0) {
        rows.emplace_back("resumed", std::to_string(report->pieces_resumed) + " of " + std::to_string(report->pieces) +
                                         " pieces were finished before");
    }
    if (!measured.is_null()) {
        rows.emplace_back("NLL", fixed(measured.at("nll_original")) + " -> " + fixed(measured.at("nll_converted")) +
                                     " nats per token");
    }
    if (report != nullptr && !report->alignment_error.empty()) {
        const auto [low, high] = std::minmax_element(report->alignment_error.begin(), report->alignment_error.end());
        rows.emplace_back("error left", fixed(*low, 5) + " to " + fixed(*high, 5) + " of a hidden state, by layer");
    }
    print_table(rows);
}

struct RunFlags {
    bool dry_run = false, print_recipe = false, json = false;
};

/// Windows of calibration text as `eval` cuts them, so that the first tokens of a sequence are aligned too.
std::vector<TokenId> load_align_windows(const ConvertFlags& flags, const AlignQuality& quality, const Model& model,
                                        std::int64_t& seq_len) {
    if (!flags.calibration.given()) {
        throw Error(ErrorCode::usage,
                    "--kv-reduction chooses by text: give --calibration-text FILE or --calibration-tokens FILE");
    }
    seq_len = flags.samples.seq_len.value_or(std::min(kAlignSeqLen, model.config.max_position_embeddings));
    const std::int64_t most = std::max<std::int64_t>(1, align_tokens(model.config, quality) / seq_len);
    const std::int64_t windows = flags.samples.samples.value_or(most);
    return make_windows(model.config, load_tokens(flags.calibration, model, windows * seq_len), {seq_len, windows});
}

/// What --kv-reduction chooses itself or cannot do is refused rather than ignored.
void check_aligned(const CLI::App& command) {
    for (const char* name : {"--rope", "--uniform-start", "--svd", "--sigma", "--svd-method", "--svd-excess", "--stats",
                             "--rank-file", "--resume", "--dry-run", "--print-recipe"}) {
        if (command.get_option(name)->count() > 0) {
            throw Error(ErrorCode::usage,
                        std::string(name) + " does not go with --kv-reduction; leave one of them out");
        }
    }
}

void run_aligned(const ConvertFlags& flags, const AlignFlags& align, const RunFlags& how, const CLI::App& command,
                 Context& context) {
    check_aligned(command);
    if (flags.samples.until_settled) {
        throw Error(ErrorCode::usage, "--samples auto does not go with --kv-reduction; give a number");
    }
    const ThreadScope threads(context.threads);
    const Model model = Model::open(flags.source);
    const AlignQuality& quality = find_align_quality(align.quality);
    std::int64_t seq_len = 0;
    const auto windows = load_align_windows(flags, quality, model, seq_len);
    ConvertOptions options = to_options(flags, model.config, context);
    check_destination(model, flags.destination, options);
    const AlignOptions asked{*align.kv_reduction, flags.latent.rope_dim, flags.latent.kv_rank, quality};
    Aligner aligner(model, windows, seq_len, asked, context.observer);
    for (const Split& split : aligner.tried()) {
        spdlog::info("rope-dim {} with kv-rank {}: error {:.6f}{}", split.rope_dim, split.kv_rank, split.error,
                     split.rope_dim == aligner.chosen().rope_dim ? ", chosen" : "");
    }
    options.rope = {"attention", aligner.chosen().rope_dim, 0};
    options.kv_rank = aligner.chosen().kv_rank;
    options.aligner = &aligner;
    options.ranks_from = {
        {"aligned-on", text_hash({reinterpret_cast<const char*>(windows.data()), windows.size() * sizeof(TokenId)})},
        {"kv-reduction", *align.kv_reduction},
        {"quality", align.quality}};
    std::ostringstream reduction;
    reduction << *align.kv_reduction;
    options.command = command_line(published(recipe_of(command, flags), model)) + " --kv-reduction " + reduction.str() +
                      " --quality " + std::string(align.quality);
    const ConvertReport report = convert(model, flags.destination, options, nullptr, context.observer);
    evaluate_if_asked(model, flags, context);
    print_report(flags, options, report.plan, &report, how.json);
}

void run(const ConvertFlags& flags, const AlignFlags& align, const RunFlags& how, const CLI::App& command,
         Context& context) {
    if (align.kv_reduction) return run_aligned(flags, align, how, command, context);
    if (how.print_recipe) return print_json(written(recipe_of(command, flags)));
    const ThreadScope threads(context.threads);
    Conversion conversion = prepare(flags, context);
    if (how.dry_run) {
        check_destination(conversion.model, flags.destination, conversion.options);
        return print_report(flags, conversion.options, conversion.plan, nullptr, how.json);
    }
    const auto recipe = published(recipe_of(command, flags), conversion.model);
    conversion.options.recipe = written(recipe);
    conversion.options.command = command_line(recipe);
    const ConvertReport report = run_conversion(conversion, flags, {}, context);
    print_report(flags, conversion.options, report.plan, &report, how.json);
}

}  // namespace

void add_convert(CLI::App& app, Context& context) {
    auto flags = std::make_shared<ConvertFlags>();
    auto align = std::make_shared<AlignFlags>();
    auto how = std::make_shared<RunFlags>();
    auto* command = app.add_subcommand("convert", "Convert a checkpoint to MLA");
    add_checkpoint_option(*command, flags->source, "source", "Checkpoint directory to convert");
    add_checkpoint_option(*command, flags->destination, "destination", "Directory to create");
    add_conversion_options(*command, *flags);
    command->option_defaults()->group(kMethod);
    command
        ->add_option(
            "--kv-reduction", align->kv_reduction,
            "Share of the KV cache to save, such as 0.6875: rotary pairs, rope-dim, kv-rank and all weights of\n"
            "the attention are chosen so that each layer computes what it did on your text")
        ->check(CLI::Range(0.0, 1.0).description(""))
        ->type_name("X");
    add_choice(*command, "--quality", align->quality, align_qualities(), &AlignQuality::name,
               "What --kv-reduction takes time for")
        ->needs("--kv-reduction");
    command->option_defaults()->group(kOutput);
    command->add_flag("--overwrite", flags->overwrite, "Replace a destination that holds files");
    command->add_flag("--resume", flags->resume,
                      "Go on with an unfinished conversion of the same settings; one that is whole is left as it is");
    command->add_flag("--dry-run", how->dry_run, "Check everything and print what would be done");
    command->add_flag("--print-recipe", how->print_recipe, "Print these options as a recipe for batch, and do nothing");
    add_threads_option(*command, context);
    add_size(*command, "--max-memory", context.max_memory,
             "Private memory that the run may take, such as 8GB: more lets it convert more layers at once;\n"
             "default: two layers' attention matrices in float32 and 200 MB")
        ->group(kRunning);
    add_json_option(*command, how->json);
    set_footer(
        *command, "The defaults are the paper's: 2-norm selection, joint SVD, a cache smaller by 68.75%.",
        {{"", "mha2mla convert ./model ./model-mla --calibration-text corpus.txt"},
         {"with statistics that calibrate saved, keeping more",
          "mha2mla convert ./model ./model-mla --stats stats.safetensors --rope-dim 16 --kv-rank 48"},
         {"without any text", "mha2mla convert ./model ./model-mla --rope uniform"},
         {"everything chosen and refined on your text, for a cache smaller by 68.75%",
          "mha2mla convert ./model ./model-mla --kv-reduction 0.6875 --calibration-text corpus.txt"},
         {"what it would do, without doing it", "mha2mla convert ./model ./model-mla --rope uniform --dry-run"}});
    command->callback([flags, align, how, command, &context] { run(*flags, *align, *how, *command, context); });
}

}  // namespace mha2mla::tool
