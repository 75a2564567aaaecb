#pragma once
/// One conversion as `convert` and `batch` both run it: its options, where its ranks come from, what it costs.

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>

#include "calibration_run.hpp"
#include "mha2mla/convert.hpp"
#include "options.hpp"

namespace mha2mla::tool {

struct ConvertFlags {
    std::filesystem::path source, destination, stats, rank_file;
    std::string rope = "2-norm";
    std::int64_t uniform_start = 0;
    LatentFlags latent;
    SvdOptions svd;
    std::optional<KvBalance> balance;
    std::optional<Dtype> dtype;
    std::uint64_t max_shard_bytes = 5'000'000'000;
    TokenOptions calibration;
    SampleFlags samples;
    TokenOptions evaluation;
    WindowFlags evaluation_windows;
    bool overwrite = false, resume = false;
};

/// Everything that decides what the output is; what a run may take and how it reports is not among it.
void add_conversion_options(CLI::App& command, ConvertFlags& flags);

/// The options that stand in `flags`, with the paper's defaults for what does not.
[[nodiscard]] ConvertOptions to_options(const ConvertFlags& flags, const ModelConfig& config, const Context& context);

/// A conversion that can run: its options are possible and belong together.
struct Conversion {
    Model model;
    ConvertOptions options;  // ranks_from included
    Plan plan;
    nlohmann::ordered_json fingerprint;
    Gathered gather;  // where it calibrates: what it needs, and what others need that share its statistics
};
/// Options that would have no effect are mistakes worth telling.
/// @throws Error{usage}, and what opening the source throws.
[[nodiscard]] Conversion prepare(const ConvertFlags& flags, Context& context);

/// Calibrates where needed and converts, or resumes. With --eval-text or --eval-tokens also evaluates both checkpoints
/// and records that in the output, if it is not recorded there yet.
/// @param statistics directory of statistics that conversions share; empty: none are kept.
[[nodiscard]] ConvertReport run_conversion(const Conversion& conversion, const ConvertFlags& flags,
                                           const std::filesystem::path& statistics, Context& context);

/// With --eval-text or --eval-tokens: evaluates both checkpoints, unless the output's record has that already.
void evaluate_if_asked(const Model& source, const ConvertFlags& flags, Context& context);

/// Whether run_conversion() would find everything done.
[[nodiscard]] bool is_done(const Conversion& conversion, const ConvertFlags& flags);

}  // namespace mha2mla::tool
