#include <array>
#include <charconv>

#include "conversion.hpp"

namespace mha2mla::tool {
namespace {

/// Of the whole output; nothing: each tensor keeps its own.
struct OutputDtypeRow {
    std::optional<Dtype> dtype;
    std::string_view name;
};
constexpr std::array<OutputDtypeRow, 4> kOutputDtypes = {
    {{std::nullopt, "auto"}, {Dtype::f32, "f32"}, {Dtype::f16, "f16"}, {Dtype::bf16, "bf16"}}};

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
            "How much more errors of keys count than errors of values, with --svd whitened or weighted:\n"
            "  auto: of several, what changes the attention's output on your text least, layer by layer\n"
            "  none: alike\n"
            "  X: as if the keys had X times the root mean square of the values; 1 is equal energy")
        ->type_name("auto|none|X")
        ->default_str("auto")
        ->run_callback_for_default(false);
}

}  // namespace

void add_conversion_options(CLI::App& command, ConvertFlags& flags) {
    command.option_defaults()->group(kMethod);
    std::string methods =
        "How it goes where no stage is named; naming --rope, --svd or what belongs to them, --stats or "
        "--rank-file uses what is named as it is, and the rest of mha2mla:";
    for (const auto& row : kMethods) methods += "\n  " + std::string(row.name) + ": " + std::string(row.what);
    add_choice(command, "--method", flags.method, kMethods, &MethodRow::method, methods)->default_str("aligned");
    command
        .add_option("--kv-reduction", flags.kv_reduction,
                    "Share of the KV cache to save; default: 0.6875. What is not named of rope-dim and kv-rank follows "
                    "from it: chosen on your text by aligned, with the paper's rope-dim otherwise")
        ->check(CLI::Range(0.0, 1.0).description(""))
        ->type_name("X");
    add_choice(command, "--quality", flags.quality, align_qualities(), &AlignQuality::name,
               "How much time aligned may take:" + qualities())
        ->default_str(std::string(align_qualities().front().name));
    std::string help = "Which rotary pairs of a head keep RoPE:";
    for (const auto& row : rope_strategies()) help += "\n  " + std::string(row.name) + ": " + std::string(row.good_for);
    add_choice(command, "--rope", flags.rope, rope_strategies(), &RopeStrategy::name, help)
        ->default_str("2-norm with --method mha2mla");
    command.add_option("--uniform-start", flags.uniform_start, "First pair of --rope uniform")
        ->check(in_range(0, 1 << 16))
        ->type_name("N")
        ->capture_default_str();
    add_latent_options(command, flags.latent, LatentDefaults::by_method);
    add_balance_option(command, flags.balance);
    std::string phases = "What queries of the pairs without RoPE become:";
    for (const auto& row : kNopePhases) phases += "\n  " + std::string(row.name) + ": " + std::string(row.what);
    add_choice(command, "--nope-phase", flags.nope_phase, kNopePhases, &NopePhaseRow::phase, phases);
    add_choice(command, "--sigma", flags.svd.sigma, kSigmaPlacements, &SigmaPlacementRow::sigma,
               "Which factor takes the singular values; the product is the same");
    add_choice(command, "--svd-method", flags.svd.method, kSvdMethods, &SvdMethodRow::method,
               "How close the error of the SVD comes to the least possible one of its rank:\n"
               "  standard: within 1e-5 of it, as precise as float32 weights deserve\n"
               "  strict: within 1e-9, in double, in twice the time and memory\n"
               "  fast: within --svd-excess, quicker where the rank is small");
    command.add_option("--svd-excess", flags.svd.max_excess, "Relative excess error that --svd-method fast may leave")
        ->check(CLI::Range(1e-6, 1.0).description(""))
        ->type_name("X")
        ->capture_default_str();
    add_token_options(command, flags.calibration, "calibration-");
    command.option_defaults()->group(kText);
    add_sample_options(command, flags.samples, true);
    command.add_option("--stats", flags.stats, "Statistics that calibrate wrote, instead of calibration text")
        ->type_name("FILE");
    command
        .add_option("--rank-file", flags.rank_file, "Rank file of the reference implementation (.pth), instead of text")
        ->type_name("FILE");
    command.option_defaults()->group(kOutput);
    add_choice(command, "--dtype", flags.dtype, kOutputDtypes, &OutputDtypeRow::dtype,
               "dtype of the output; auto keeps each tensor's");
    add_size(command, "--max-shard-size", flags.max_shard_bytes, "Largest weight file, such as 5GB or 500MiB")
        ->default_str("5GB");
    add_token_options(command, flags.evaluation, "eval-");
    add_window_options(command, flags.evaluation_windows, "eval-");
}

}  // namespace mha2mla::tool
