#pragma once
/// Option groups that several subcommands share, so that they read alike everywhere.

#include <CLI/CLI.hpp>
#include <filesystem>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "context.hpp"
#include "mha2mla/layout.hpp"
#include "mha2mla/model.hpp"
#include "mha2mla/shard.hpp"
#include "mha2mla/statistics.hpp"
#include "mha2mla/suggestion.hpp"
#include "mha2mla/text_source.hpp"

namespace mha2mla::tool {

/// Groups of --help, for options that belong together wherever they are declared.
inline constexpr const char* kInput = "Input";
inline constexpr const char* kMethod = "Method";
inline constexpr const char* kText = "Text";
inline constexpr const char* kOutput = "Output";
inline constexpr const char* kRunning = "Running";

void add_checkpoint_option(CLI::App& command, std::filesystem::path& path, const char* name = "model",
                           const char* help = "Checkpoint directory (config.json, *.safetensors)");
/// --ignore-unused.
void add_ignore_unused_option(CLI::App& command, bool& ignore_unused);
/// Opens a checkpoint and shows its warnings.
[[nodiscard]] Model open_model(const std::filesystem::path& directory, bool ignore_unused, Context& context);
void add_json_option(CLI::App& command, bool& json);
void add_threads_option(CLI::App& command, Context& context);
void add_max_memory_option(CLI::App& command, Context& context);

/// @param prefix "" gives --text and --tokens, "calibration-" gives --calibration-text and so on.
void add_token_options(CLI::App& command, TextSource& options, const std::string& prefix = "");

/// load_tokens(), with a message where a file's form is more than text.
[[nodiscard]] std::vector<TokenId> load_tokens_saying_how(const TextSource& source, const Model& model,
                                                          std::optional<std::int64_t> needed);

/// --context and --max-windows.
struct WindowFlags {
    std::optional<std::int64_t> context, max_windows;
};
/// @param prefix as of add_token_options.
void add_window_options(CLI::App& command, WindowFlags& flags, const std::string& prefix = "");
/// Windows of the given tokens for `model`. Warns where the context is longer than the model was trained for.
[[nodiscard]] std::vector<TokenId> load_windows(const TextSource& tokens, const WindowFlags& flags, const Model& model,
                                                Context& context, std::int64_t& window_length);

/// --rope-dim, --kv-rank and --svd.
struct LatentFlags {
    std::optional<std::int64_t> rope_dim, kv_rank;
    std::optional<Factorization> factorization;  // absent: joint
};
/// What becomes of those that are not given.
enum class LatentDefaults : std::uint8_t { papers, by_method };
void add_latent_options(CLI::App& command, std::optional<std::int64_t>& rope_dim, std::optional<std::int64_t>& kv_rank,
                        std::optional<Factorization>& factorization, LatentDefaults defaults);
/// @param flags LatentFlags, or anything else with its members.
template <typename Flags>
void add_latent_options(CLI::App& command, Flags& flags, LatentDefaults defaults = LatentDefaults::papers) {
    add_latent_options(command, flags.rope_dim, flags.kv_rank, flags.factorization, defaults);
}

/// --samples and --seq-len. @param aligns whether the command may align weights, which takes other numbers of them.
void add_sample_options(CLI::App& command, SampleOptions& flags, bool aligns);

/// The option of calibrate that gathers an order of pairs: "--attention-order".
[[nodiscard]] std::string order_option(const PairOrder& order);
/// Those of all selections, with `between` between them.
[[nodiscard]] std::string order_options(std::string_view between);

/// An option whose value is a size: "5GB", "500MiB", "1000".
CLI::Option* add_size(CLI::App& command, const std::string& name, std::uint64_t& bytes, const std::string& help);

/// --shard I/N, which hands the share to `set`.
CLI::Option* add_shard_option(CLI::App& command, const std::function<void(const Shard&)>& set, const std::string& help);

/// An option whose value is one of a table's names. `key` is the member that the name stands for.
template <typename Rows, typename Key, typename Value>
CLI::Option* add_choice(CLI::App& command, const std::string& name, Value& value, const Rows& rows, Key key,
                        const std::string& help) {
    std::string names, initial;
    std::vector<std::string> candidates;
    for (const auto& row : rows) {
        names += (names.empty() ? "" : ",") + std::string(row.name);
        candidates.emplace_back(row.name);
        if (row.*key == value) initial = row.name;
    }
    const auto parse = [name, names, candidates, &value, rows, key](const std::string& text) {
        for (const auto& row : rows) {
            if (row.name == text) return void(value = row.*key);
        }
        throw CLI::ValidationError(name, "'" + text + "' is not one of " + names + did_you_mean(text, candidates));
    };
    return command.add_option_function<std::string>(name, parse, help)
        ->type_name("{" + names + "}")
        ->default_str(initial)
        ->run_callback_for_default(false);
}

/// --dtype: of all floating-point tensors of an output; nothing: "auto". @param help what auto means, at least.
void add_dtype_option(CLI::App& command, std::optional<Dtype>& dtype, const std::string& help);

/// Checks a whole number without putting the range into the help.
[[nodiscard]] CLI::Validator in_range(std::int64_t low, std::int64_t high);

enum class Least : std::uint8_t { included, excluded };
/// The same of a number, which must be finite.
[[nodiscard]] CLI::Validator number_in(double low, double high = std::numeric_limits<double>::max(),
                                       Least least = Least::included);

}  // namespace mha2mla::tool
