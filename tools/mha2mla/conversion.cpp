#include "conversion.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <thread>

#include "calibration_run.hpp"
#include "mha2mla/error.hpp"
#include "mha2mla/evaluate.hpp"
#include "mha2mla/fingerprint.hpp"
#include "mha2mla/version.hpp"

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

/// What the ranks are made of, by content: the name and place of a file do not matter.
Json describe_ranks(const ConvertFlags& flags, const ModelConfig& config) {
    if (!find_rope_strategy(flags.rope).needs_ranks) return nullptr;
    if (!flags.rank_file.empty()) return {{"rank-file", file_hash(flags.rank_file)}};
    if (!flags.stats.empty()) return {{"stats", file_hash(flags.stats)}};
    const TokenOptions& data = flags.calibration;
    Json json;
    if (data.tokens.empty()) {
        json["calibration-text"] = file_hash(data.text);
        if (!data.tokenizer.empty()) json["calibration-tokenizer"] = file_hash(data.tokenizer);
    } else {
        json["calibration-tokens"] = file_hash(data.tokens);
        json["calibration-token-format"] = kTokenFormats.at(static_cast<std::size_t>(data.format)).name;
    }
    json["samples"] =
        flags.samples.until_settled ? Json("auto") : Json(flags.samples.samples.value_or(SampleFlags::kDefaultSamples));
    json["seq-len"] = flags.samples.seq_len.value_or(std::min<std::int64_t>(2048, config.max_position_embeddings));
    return json;
}

/// Held while statistics are computed, so that other processes wait for them instead of computing them too.
class FileLock {
public:
    FileLock(const fs::path& path, Context& context)
        : descriptor_(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666)) {
        if (descriptor_ < 0) throw Error(ErrorCode::io, path.string() + ": cannot create; is the directory writable?");
        while (::flock(descriptor_, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
            if (context.observer.cancelled()) {
                ::close(descriptor_);
                throw Error(ErrorCode::interrupted, "interrupted while another process computes " + path.string());
            }
            std::this_thread::sleep_for(std::chrono::milliseconds(200));
        }
    }
    ~FileLock() { ::close(descriptor_); }
    FileLock(const FileLock&) = delete;
    FileLock& operator=(const FileLock&) = delete;
    FileLock(FileLock&&) = delete;
    FileLock& operator=(FileLock&&) = delete;

private:
    int descriptor_;
};

CalibrationStats statistics(const Conversion& conversion, const ConvertFlags& flags, const fs::path& directory,
                            Context& context) {
    const auto calibrated = [&] {
        return run_calibration(conversion.model, flags.calibration, flags.samples, conversion.options.rope.rope_dim,
                               context);
    };
    const fs::path file = statistics_file(conversion, flags, directory);
    if (file.empty()) return calibrated();
    fs::create_directories(directory);
    const FileLock lock(file.string() + ".lock", context);
    std::error_code ignored;
    if (fs::exists(file, ignored)) return load_stats(file);
    const CalibrationStats stats = calibrated();
    save_stats(file, stats);
    return stats;
}

std::optional<PairRanks> load_ranks(const Conversion& conversion, const ConvertFlags& flags, const fs::path& directory,
                                    Context& context) {
    if (!find_rope_strategy(flags.rope).needs_ranks) return std::nullopt;
    if (conversion.options.resume) {
        if (auto ranks = unfinished_ranks(flags.destination, conversion.fingerprint)) return ranks;
    }
    if (!flags.rank_file.empty()) return read_rank_file(flags.rank_file);
    if (flags.stats.empty()) return two_norm_ranks(statistics(conversion, flags, directory, context));
    const CalibrationStats stats = load_stats(flags.stats);
    check_stats_fit(stats, conversion.model.config, flags.stats.string());
    return two_norm_ranks(stats);
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
    Conversion conversion{Model::open(flags.source), {}, {}, {}};
    const ModelConfig& config = conversion.model.config;
    conversion.options = to_options(flags, config, context);
    conversion.options.ranks_from = describe_ranks(flags, config);
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
        const auto ranks = load_ranks(conversion, flags, directory, context);
        finished = convert(conversion.model, flags.destination, conversion.options, ranks ? &*ranks : nullptr,
                           context.observer);
    }
    evaluate_if_asked(conversion.model, flags, context);
    return *finished;
}

bool is_done(const Conversion& conversion, const ConvertFlags& flags) {
    return finished_conversion(flags.destination, conversion.fingerprint) && is_evaluated(flags);
}

fs::path statistics_file(const Conversion& conversion, const ConvertFlags& flags, const fs::path& directory) {
    const bool calibrates = find_rope_strategy(flags.rope).needs_ranks && flags.calibration.given();
    if (directory.empty() || !calibrates) return {};
    Json key = {{"version", version()},
                {"source", conversion.fingerprint.at("source")},
                {"data", conversion.options.ranks_from}};
    if (flags.samples.until_settled) key["rope-dim"] = conversion.options.rope.rope_dim;
    const std::string name = fs::weakly_canonical(flags.source).filename().string();
    return directory / (name + "-" + text_hash(key.dump()).substr(0, 16) + ".safetensors");
}

}  // namespace mha2mla::tool
