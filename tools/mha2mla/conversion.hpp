#pragma once
/// One conversion as `convert` and `batch` both run it: its options, where its ranks come from, what it costs.

#include <array>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>

#include "calibration_run.hpp"
#include "mha2mla/convert.hpp"
#include "options.hpp"

namespace mha2mla::tool {

/// The conversion method where no stage is named.
enum class Method : std::uint8_t { aligned, mha2mla };
struct MethodRow {
    Method method;
    std::string_view name, what;
};
inline constexpr std::array<MethodRow, 2> kMethods = {{
    {Method::aligned, "aligned",
     "chooses pairs, rope-dim and kv-rank on your text, and aligns each layer with the original's"},
    {Method::mha2mla, "mha2mla", "the paper's: 2-norm pairs, rope-dim head_dim/8, kv-rank head_dim/2, joint SVD"},
}};

struct ConvertFlags {
    std::filesystem::path source, destination, stats, rank_file;
    std::optional<Method> method;
    std::optional<double> kv_reduction;
    std::optional<std::string_view> quality;
    std::optional<std::string> rope;
    std::optional<std::int64_t> uniform_start;
    LatentFlags latent;
    std::optional<SigmaPlacement> sigma;
    std::optional<SvdMethod> svd_method;
    std::optional<double> svd_excess;
    std::optional<KvBalance> balance;
    std::optional<NopePhase> nope_phase;
    std::optional<Dtype> dtype;
    std::uint64_t max_shard_bytes = 5'000'000'000;
    TokenOptions calibration;
    SampleFlags samples;
    TokenOptions evaluation;
    WindowFlags evaluation_windows;
    bool overwrite = false, resume = false;

    /// `aligned` unless another method or a stage of it is named: what is named is used as it is, and nothing refined.
    [[nodiscard]] bool aligned() const;
    /// Of a conversion that is not aligned: what is named, or the paper's.
    [[nodiscard]] std::string selection() const { return rope.value_or("2-norm"); }
    [[nodiscard]] Factorization factorization() const { return latent.factorization.value_or(Factorization::joint); }
    [[nodiscard]] SvdOptions svd() const {
        const SvdOptions usual;
        return {sigma.value_or(usual.sigma), svd_method.value_or(usual.method), svd_excess.value_or(usual.max_excess)};
    }
};

/// --method and --kv-reduction.
void add_budget_options(CLI::App& command, ConvertFlags& flags);
/// Everything that decides what the output is; what a run may take and how it reports is not among it.
void add_conversion_options(CLI::App& command, ConvertFlags& flags);

/// A conversion that can run: its options are possible and belong together.
struct Conversion {
    Model model;
    ConversionPlan plan;
    RunLimits limits;
    Provenance provenance;
    Plan cost;
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

/// Whether run_conversion() would find everything done.
[[nodiscard]] bool is_done(const Conversion& conversion, const ConvertFlags& flags);

}  // namespace mha2mla::tool
