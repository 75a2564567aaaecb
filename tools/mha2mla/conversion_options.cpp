#include <array>
#include <charconv>

#include "conversion.hpp"
#include "method.hpp"

namespace mha2mla::tool {
namespace {

std::string qualities() {
    std::string text;
    for (const auto& row : align_qualities()) text += "\n  " + std::string(row.name) + ": " + std::string(row.what);
    return text;
}

void add_balance_option(CLI::App& command, std::optional<KvBalance>& balance) {
    const auto parse = [&balance](const std::string& text) {
        using How = KvBalance::How;
        if (text == "auto") return void(balance = {How::automatic, 1});
        if (text == "none") return void(balance = {How::none, 1});
        double factor = 0;
        const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), factor);
        if (error != std::errc() || end != text.data() + text.size() || !(factor >= 1e-3 && factor <= 1e3)) {
            throw CLI::ValidationError("--kv-balance",
                                       "'" + text + "' is none of auto, none and the numbers from 0.001 to 1000");
        }
        balance = {How::factor, factor};
    };
    command
        .add_option_function<std::string>(
            "--kv-balance", parse,
            "Weight of errors of keys against errors of values:\n"
            "  auto: try several values per layer; keep the one that changes the attention output on your text least\n"
            "  none: errors of keys and values count alike\n"
            "  X: as if the keys had X times the root mean square of the values; 1 is equal energy")
        ->type_name("auto|none|X")
        ->default_str("auto")
        ->run_callback_for_default(false);
}

}  // namespace

void add_budget_options(CLI::App& command, ConvertFlags& flags) {
    std::string methods = "Conversion method. Setting an option of a stage (" + stage_options() +
                          ") selects mha2mla with that stage replaced:";
    for (const auto& row : kMethods) methods += "\n  " + std::string(row.name) + ": " + std::string(row.what);
    add_choice(command, "--method", flags.request.method, kMethods, &MethodRow::method, methods)
        ->default_str("aligned")
        ->group(kMethod);
    command
        .add_option(
            "--kv-reduction", flags.request.kv_reduction,
            "Share of the KV cache to save; default: 0.6875. It gives whichever of rope-dim and kv-rank is not set: "
            "aligned chooses them on your text, mha2mla takes the paper's rope-dim")
        ->check(number_in(0, 1))
        ->type_name("X")
        ->group(kMethod);
    std::string layouts = "Form of the output:";
    for (const auto& row : latent_layouts()) layouts += "\n  " + std::string(row.name) + ": " + std::string(row.what);
    add_choice(command, "--layout", flags.request.layout, latent_layouts(), &LatentLayout::name, layouts)
        ->default_str(std::string(deepseek_layout().name) +
                      "; mha2mla with --method mha2mla, and for models with rules that DeepSeek's block has not")
        ->group(kMethod);
}

void add_conversion_options(CLI::App& command, ConvertFlags& flags) {
    command.option_defaults()->group(kMethod);
    add_budget_options(command, flags);
    add_choice(command, "--quality", flags.request.quality, align_qualities(), &AlignQuality::name,
               "Time that aligned takes for a better result:" + qualities())
        ->default_str(std::string(align_qualities().front().name));
    std::string frequencies = "Frequencies at which the rotated key of layout deepseek turns:";
    for (const auto& row : kRopeFrequencies) {
        frequencies += "\n  " + std::string(row.name) + ": " + std::string(row.what);
    }
    add_choice(command, "--rope-frequencies", flags.request.frequencies, kRopeFrequencies,
               &RopeFrequenciesRow::frequencies, frequencies)
        ->default_str(std::string(kRopeFrequencies.front().name));
    std::string norms = "What the norm on the latent of layout deepseek does:";
    for (const auto& row : kLatentNorms) norms += "\n  " + std::string(row.name) + ": " + std::string(row.what);
    add_choice(command, "--latent-norm", flags.request.latent_norm, kLatentNorms, &LatentNormRow::norm, norms)
        ->default_str(std::string(kLatentNorms.front().name) + "; trained if the output is F16");
    command.add_flag("--pad", flags.request.pad,
                     "Pad to rope-dim 64 and kv-rank 512, the widths that kernels of vLLM and SGLang are made for; the "
                     "whole width is used where keys and values fill it");
    command.add_flag("--without-bias", flags.request.without_bias,
                     "Fold the biases of queries, keys and values into their weights, along the direction in which "
                     "hidden states are constant, for engines that have no place for them");
    std::string help = "Which rotary pairs of a head keep RoPE:";
    for (const auto& row : rope_strategies()) help += "\n  " + std::string(row.name) + ": " + std::string(row.good_for);
    add_choice(command, "--rope", flags.request.rope, rope_strategies(), &RopeStrategy::name, help)
        ->default_str("2-norm with --method mha2mla");
    command.add_option("--uniform-start", flags.request.uniform_start, "First pair of --rope uniform")
        ->check(in_range(0, 1 << 16))
        ->type_name("N")
        ->default_str("0");
    add_latent_options(command, flags.request, LatentDefaults::by_method);
    add_balance_option(command, flags.request.balance);
    std::string phases = "Rotation of the queries of pairs without RoPE:";
    for (const auto& row : kNopePhases) phases += "\n  " + std::string(row.name) + ": " + std::string(row.what);
    add_choice(command, "--nope-phase", flags.request.nope_phase, kNopePhases, &NopePhaseRow::phase, phases)
        ->default_str("zero");
    add_choice(command, "--sigma", flags.request.sigma, kSigmaPlacements, &SigmaPlacementRow::sigma,
               "Factor that takes the singular values; the product is the same")
        ->default_str("balanced");
    add_choice(command, "--svd-method", flags.request.svd_method, kSvdMethods, &SvdMethodRow::method,
               "How close the error of the SVD comes to the least possible one of its rank:\n"
               "  standard: within 1e-5 of it, as precise as float32 weights deserve\n"
               "  strict: within 1e-9, in double, in twice the time and memory\n"
               "  fast: within --svd-excess, quicker if the rank is small")
        ->default_str("standard");
    command.add_option("--svd-excess", flags.request.svd_excess, "Largest relative excess error of the SVD")
        ->check(number_in(1e-6, 1))
        ->type_name("X")
        ->default_str("0.001");
    add_token_options(command, flags.statistics.text, "calibration-");
    command.option_defaults()->group(kText);
    add_sample_options(command, flags.statistics.samples, true);
    command
        .add_option("--stats", flags.statistics.stats, "Statistics that calibrate wrote, instead of calibration text")
        ->type_name("FILE");
    command
        .add_option("--rank-file", flags.statistics.rank_file,
                    "Rank file of the reference implementation (.pth), instead of text")
        ->type_name("FILE");
    add_ignore_unused_option(command, flags.ignore_unused);
    command.option_defaults()->group(kOutput);
    add_dtype_option(command, flags.request.dtype, "dtype of the output; auto keeps each tensor's");
    command.add_flag("--reference-config", flags.request.reference_config,
                     "Write config.json for the training and evaluation code of the MHA2MLA reference implementation, "
                     "with the original's model_type: transformers alone then takes the output for an original, and "
                     "gives it random keys and values");
    command.add_flag(
        "--gqa2mha", flags.request.gqa2mha,
        "is_gqa2mha2mla of the reference implementation: repeat the keys for each query head first, so that "
        "each keeps pairs of its own; the cache holds more rotated keys; needs --reference-config");
    add_size(command, "--max-shard-size", flags.max_shard_bytes, "Largest weight file, such as 5GB or 500MiB")
        ->default_str("5GB");
    add_token_options(command, flags.evaluation, "eval-");
    add_window_options(command, flags.evaluation_windows, "eval-");
    document_conversion_rules(command);
}

}  // namespace mha2mla::tool
