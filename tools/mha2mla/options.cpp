#include "options.hpp"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>

#include "mha2mla/evaluate.hpp"
#include "text_input.hpp"

namespace mha2mla::tool {
namespace {

struct OutputDtypeRow {
    std::optional<Dtype> dtype;
    std::string_view name;
};
constexpr std::array<OutputDtypeRow, 4> kOutputDtypes = {
    {{std::nullopt, "auto"}, {Dtype::f32, "f32"}, {Dtype::f16, "f16"}, {Dtype::bf16, "bf16"}}};

/// @throws CLI::ValidationError naming the option.
std::uint64_t parse_size(const std::string& name, const std::string& text) {
    static constexpr std::pair<std::string_view, std::uint64_t> kUnits[] = {
        {"", 1},
        {"b", 1},
        {"kb", 1'000},
        {"mb", 1'000'000},
        {"gb", 1'000'000'000},
        {"tb", 1'000'000'000'000},
        {"kib", 1U << 10},
        {"mib", 1U << 20U},
        {"gib", 1ULL << 30U},
        {"tib", 1ULL << 40U},
    };
    std::uint64_t count = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), count);
    std::string unit(end, text.data() + text.size());
    std::transform(unit.begin(), unit.end(), unit.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    for (const auto& [suffix, size] : kUnits) {
        std::uint64_t bytes = 0;
        if (suffix == unit && error == std::errc() && !__builtin_mul_overflow(count, size, &bytes) && bytes > 0)
            return bytes;
    }
    throw CLI::ValidationError(name, "'" + text + "' is not a size such as 5GB, 500MB or 2GiB");
}

}  // namespace

void add_checkpoint_option(CLI::App& command, std::filesystem::path& path, const char* name, const char* help) {
    command.add_option(name, path, help)->required()->type_name("DIR");
}

void add_ignore_unused_option(CLI::App& command, bool& ignore_unused) {
    command
        .add_flag("--ignore-unused", ignore_unused,
                  "Leave out weights that the architecture has no place for although they would change the result: a "
                  "warning instead of an error")
        ->group(kInput);
}

Model open_model(const std::filesystem::path& directory, bool ignore_unused, Context& context) {
    Model model = Model::open(directory, {ignore_unused});
    for (const std::string& warning : model.warnings) context.observer.warn(warning);
    return model;
}

void add_json_option(CLI::App& command, bool& json) {
    command.add_flag("--json", json, "Print the result as JSON")->group(kRunning);
}

void add_threads_option(CLI::App& command, Context& context) {
    command.add_option("--threads", context.threads, "Threads; 0 uses all. The result does not depend on it")
        ->check(in_range(0, 4096))
        ->type_name("N")
        ->capture_default_str()
        ->group(kRunning);
}

void add_max_memory_option(CLI::App& command, Context& context) {
    add_size(command, "--max-memory", context.max_memory,
             "Memory that the run may take, such as 8GB; default: half of what is available")
        ->group(kRunning);
}

CLI::Option* add_size(CLI::App& command, const std::string& name, std::uint64_t& bytes, const std::string& help) {
    return command
        .add_option_function<std::string>(
            name, [name, &bytes](const std::string& text) { bytes = parse_size(name, text); }, help)
        ->type_name("SIZE");
}

CLI::Option* add_shard_option(CLI::App& command, const std::function<void(const Shard&)>& set,
                              const std::string& help) {
    const auto parse = [set](const std::string& text) {
        try {
            set(parse_shard(text));
        } catch (const Error& error) {
            throw CLI::ValidationError("--shard", error.what());
        }
    };
    return command.add_option_function<std::string>("--shard", parse, help)->type_name("I/N");
}

void add_dtype_option(CLI::App& command, std::optional<Dtype>& dtype, const std::string& help) {
    add_choice(command, "--dtype", dtype, kOutputDtypes, &OutputDtypeRow::dtype, help);
}

void add_token_options(CLI::App& command, TextSource& options, const std::string& prefix) {
    auto* text = command.add_option("--" + prefix + "text", options.text,
                                    "UTF-8 text, or JSON Lines, also packed by gzip or zstd; - is standard input");
    text->type_name("FILE")->group(kText)->transform([](const std::string& path) { return readable_text(path); });
    command
        .add_option("--" + prefix + "text-field", options.field,
                    "Of JSON Lines: the key of each line under which its text is; default: text, if the file is "
                    "JSON Lines by its name or its first line")
        ->type_name("NAME")
        ->needs(text)
        ->group(kText);
    auto* tokens =
        command.add_option("--" + prefix + "tokens", options.tokens,
                           "Token ids instead of text: raw uint16 or uint32, .npy, or .jsonl with input_ids");
    tokens->type_name("FILE")->excludes(text)->group(kText);
    add_choice(command, "--" + prefix + "token-format", options.format, kTokenFormats, &TokenFormatRow::format,
               "Format of the token file")
        ->needs(tokens)
        ->group(kText);
    command.add_option("--" + prefix + "tokenizer", options.tokenizer, "tokenizer.json; default: the checkpoint's")
        ->type_name("FILE")
        ->needs(text)
        ->group(kText);
}

void add_window_options(CLI::App& command, WindowFlags& flags, const std::string& prefix) {
    command
        .add_option("--" + prefix + "context", flags.context,
                    "Tokens of a window, BOS included; default: 2048 or max_position_embeddings if less")
        ->check(in_range(2, 1 << 24))
        ->type_name("N")
        ->group(kText);
    command.add_option("--" + prefix + "max-windows", flags.max_windows, "Use the first N windows; default: all")
        ->check(in_range(1, std::int64_t{1} << 40))
        ->type_name("N")
        ->group(kText);
}

std::vector<TokenId> load_tokens_saying_how(const TextSource& source, const Model& model,
                                            std::optional<std::int64_t> needed) {
    if (const std::string field = text_field(source); !field.empty()) {
        spdlog::info("{}: JSON Lines; what is under '{}' is read", source.text.string(), field);
    }
    return load_tokens(source, model, needed);
}

std::vector<TokenId> load_windows(const TextSource& tokens, const WindowFlags& flags, const Model& model,
                                  Context& context, std::int64_t& window_length) {
    window_length = flags.context.value_or(std::min<std::int64_t>(2048, model.config.max_position_embeddings));
    if (window_length > model.config.max_position_embeddings) {
        context.observer.warn("--context " + std::to_string(window_length) + " is longer than the model's " +
                              std::to_string(model.config.max_position_embeddings) + " positions");
    }
    std::optional<std::int64_t> needed;
    if (flags.max_windows && *flags.max_windows < (std::int64_t{1} << 38) / window_length) {
        needed = *flags.max_windows * window_length;
    }
    return make_windows(model.config, load_tokens_saying_how(tokens, model, needed),
                        {window_length, flags.max_windows});
}

void add_latent_options(CLI::App& command, std::optional<std::int64_t>& rope_dim, std::optional<std::int64_t>& kv_rank,
                        std::optional<Factorization>& factorization, LatentDefaults defaults) {
    const bool by_method = defaults == LatentDefaults::by_method;
    const std::string otherwise = by_method ? " with --method mha2mla, chosen by aligned" : "";
    command
        .add_option("--rope-dim", rope_dim,
                    "Dimensions of each head that keep RoPE (d_r), or of the one rotated key of layout deepseek; "
                    "default: head_dim/8, "
                    "at least 2" +
                        otherwise)
        ->type_name("N")
        ->group(kMethod);
    command
        .add_option(
            "--kv-rank", kv_rank,
            "Latent width per KV head (d_kv), or for all heads in layout deepseek; default: head_dim/2" + otherwise)
        ->type_name("N")
        ->group(kMethod);
    std::string help = "Factorisation of NoPE keys and values:";
    for (const auto& row : kFactorizations) help += "\n  " + std::string(row.name) + ": " + std::string(row.what);
    add_choice(command, "--svd", factorization, kFactorizations, &FactorizationRow::factorization, help)
        ->default_str(by_method ? "joint with --method mha2mla" : "joint")
        ->group(kMethod);
}

void add_sample_options(CLI::App& command, SampleOptions& flags, bool aligns) {
    const auto parse = [&flags](const std::string& text) {
        flags.until_settled = text == "auto";
        if (flags.until_settled) return flags.samples.reset();
        std::string number = text;
        const std::string problem = in_range(1, std::int64_t{1} << 32)(number);
        if (!problem.empty()) throw CLI::ValidationError("--samples", problem + ", nor auto");
        flags.samples = std::stoll(text);
    };
    command
        .add_option_function<std::string>("--samples", parse,
                                          std::string("Number of calibration sequences") +
                                              (aligns ? "; default with aligned: as many as it needs" : "") +
                                              "; auto: until the pairs that 2-norm selects stay the same")
        ->type_name("N|auto")
        ->default_str(std::to_string(SampleOptions::kDefaultSamples))
        ->run_callback_for_default(false)
        ->group(kText);
    command
        .add_option("--seq-len", flags.seq_len,
                    std::string("Tokens of a sequence; default: 2048") + (aligns ? ", or 512 with aligned," : "") +
                        " or max_position_embeddings if less")
        ->check(in_range(1, 1 << 24))
        ->type_name("N")
        ->group(kText);
}

std::string order_option(const PairOrder& order) { return "--" + std::string(order.statistic) + "-order"; }

std::string order_options(std::string_view between) {
    std::string text;
    for (const RopeStrategy& strategy : rope_strategies()) {
        if (!strategy.goes_by_order()) continue;
        text += (text.empty() ? std::string() : std::string(between)) + order_option(strategy.order);
    }
    return text;
}

CLI::Validator in_range(std::int64_t low, std::int64_t high) {
    const auto check = [low, high](std::string& text) -> std::string {
        std::int64_t value = 0;
        const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
        if (error == std::errc() && end == text.data() + text.size() && value >= low && value <= high) return "";
        return "'" + text + "' is not a whole number from " + std::to_string(low) + " to " + std::to_string(high);
    };
    return {check, ""};
}

CLI::Validator number_in(double low, double high, Least least) {
    const auto shown = [](double value) { return nlohmann::json(value).dump(); };
    const bool above = least == Least::excluded, bounded = high < std::numeric_limits<double>::max();
    const std::string wanted =
        bounded ? "from " + shown(low) + " to " + shown(high) : (above ? "above " : "of at least ") + shown(low);
    const auto check = [low, high, above, wanted](std::string& text) -> std::string {
        double value = 0;
        const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
        const bool is_number = error == std::errc() && end == text.data() + text.size();
        if (is_number && value <= high && (above ? value > low : value >= low)) return "";
        return "'" + text + "' is not a number " + wanted;
    };
    return {check, ""};
}

}  // namespace mha2mla::tool
