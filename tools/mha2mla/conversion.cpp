#include "conversion.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include "mha2mla/error.hpp"
#include "mha2mla/evaluate.hpp"
#include "mha2mla/fingerprint.hpp"
#include "statistics.hpp"

namespace mha2mla::tool {
namespace fs = std::filesystem;
namespace {

using Json = nlohmann::ordered_json;

/// Of the whole output; nothing: each tensor keeps its own.
struct OutputDtypeRow {
    std::optional<Dtype> dtype;
    std::string_view name;
};
constexpr std::array<OutputDtypeRow, 4> kOutputDtypes = {
    {{std::nullopt, "auto"}, {Dtype::f32, "f32"}, {Dtype::f16, "f16"}, {Dtype::bf16, "bf16"}}};

/// Options that would have no effect are mistakes worth telling.
void check_flags(const ConvertFlags& flags, Context& context) {
    check_statistics_flags(flags, context);
    if (flags.uniform_start != 0 && flags.rope != "uniform") {
        throw Error(ErrorCode::usage, "--uniform-start only goes with --rope uniform");
    }
    if (flags.balance && flags.latent.factorization != Factorization::whitened) {
        throw Error(ErrorCode::usage, "--kv-balance only goes with --svd whitened");
    }
    if (flags.latent.factorization == Factorization::none && flags.latent.kv_rank) {
        context.observer.warn("--kv-rank has no effect with --svd none");
    }
}

/// What is evaluated, so that it is known whether that was done.
Json describe_evaluation(const ConvertFlags& flags) {
    const TokenOptions& data = flags.evaluation;
    const auto or_null = [](const auto& value) { return value ? Json(*value) : Json(); };
    return {{"hash", file_hash(data.text.empty() ? data.tokens : data.text)},
            {"tokenizer", data.tokenizer.empty() ? Json() : Json(file_hash(data.tokenizer))},
            {"token_format", kTokenFormats.at(static_cast<std::size_t>(data.format)).name},
            {"asked_context", or_null(flags.evaluation_windows.context)},
            {"asked_windows", or_null(flags.evaluation_windows.max_windows)}};
}

bool is_evaluated(const ConvertFlags& flags) {
    if (!flags.evaluation.given()) return true;
    const Json measured = measurement_at(flags.destination);
    return measured.is_object() && measured.value("of", Json()) == describe_evaluation(flags);
}

}  // namespace

ConvertOptions to_options(const ConvertFlags& flags, const ModelConfig& config, const Context& context) {
    ConvertOptions options;
    options.rope = {flags.rope, flags.latent.rope_dim.value_or(default_rope_dim(config)), flags.uniform_start};
    options.kv_rank = flags.latent.kv_rank.value_or(default_kv_rank(config));
    options.factorization = flags.latent.factorization;
    options.svd = flags.svd;
    options.balance = flags.balance.value_or(KvBalance());
    options.dtype = flags.dtype;
    options.max_shard_bytes = flags.max_shard_bytes;
    options.overwrite = flags.overwrite;
    options.resume = flags.resume;
    options.max_memory = context.max_memory;
    return options;
}

void evaluate_if_asked(const Model& source, const ConvertFlags& flags, Context& context) {
    if (is_evaluated(flags)) return;
    std::int64_t length = 0;
    const auto windows = load_windows(flags.evaluation, flags.evaluation_windows, source, context, length);
    const VerifyResult result = verify(source, Model::open(flags.destination), windows, length, context.observer);
    Json measured;
    measured["data"] = fs::path(flags.evaluation.name()).filename().string();
    measured["nll_original"] = result.nll_original;
    measured["nll_converted"] = result.nll_converted;
    measured["mean_kl"] = result.mean_kl;
    measured["tokens"] = result.tokens;
    measured["windows"] = result.windows;
    measured["context"] = result.context;
    measured["of"] = describe_evaluation(flags);
    record_measurement(flags.destination, measured);
}

namespace {

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
            "How much more errors of keys count than errors of values, with --svd whitened:\n"
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
    std::string help = "Which rotary pairs of a head keep RoPE:";
    for (const auto& row : rope_strategies()) help += "\n  " + std::string(row.name) + ": " + std::string(row.good_for);
    add_choice(command, "--rope", flags.rope, rope_strategies(), &RopeStrategy::name, help);
    command.add_option("--uniform-start", flags.uniform_start, "First pair of --rope uniform")
        ->check(in_range(0, 1 << 16))
        ->type_name("N")
        ->capture_default_str();
    add_latent_options(command, flags.latent);
    add_balance_option(command, flags.balance);
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
    add_sample_options(command, flags.samples);
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

Conversion prepare(const ConvertFlags& flags, Context& context) {
    check_flags(flags, context);
    Conversion conversion{Model::open(flags.source), {}, {}, {}, {}};
    const ModelConfig& config = conversion.model.config;
    conversion.options = to_options(flags, config, context);
    conversion.gather = needs_of(flags);
    conversion.options.ranks_from = describe_statistics(flags, config);
    const ConvertOptions& options = conversion.options;
    conversion.plan = plan_conversion(config, {options.rope.rope_dim, options.kv_rank, options.factorization, 16});
    check_rope_dim(config, options.rope.rope_dim);
    conversion.fingerprint = conversion_fingerprint(conversion.model, options);
    return conversion;
}

ConvertReport run_conversion(const Conversion& conversion, const ConvertFlags& flags, const fs::path& directory,
                             Context& context) {
    // An existing output is reported before a long calibration, not after it.
    auto finished = conversion.options.resume ? finished_conversion(flags.destination, conversion.fingerprint)
                                              : std::optional<ConvertReport>();
    if (!finished) {
        check_destination(conversion.model, flags.destination, conversion.options);
        const Statistics statistics = load_statistics(conversion, flags, directory, context);
        ConvertOptions options = conversion.options;
        options.inputs = statistics.inputs.get();
        finished = convert(conversion.model, flags.destination, options,
                           statistics.ranks ? &*statistics.ranks : nullptr, context.observer);
    }
    evaluate_if_asked(conversion.model, flags, context);
    return *finished;
}

bool is_done(const Conversion& conversion, const ConvertFlags& flags) {
    return finished_conversion(flags.destination, conversion.fingerprint) && is_evaluated(flags);
}

}  // namespace mha2mla::tool
