#pragma once
/// What is asked of a conversion, and the plan that follows from it and the model.

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "mha2mla/convert.hpp"
#include "mha2mla/table.hpp"

namespace mha2mla {

/// The conversion method where no stage is named.
enum class Method : std::uint8_t { aligned, mha2mla, transmla, transmla_v1, transmla_v1_identity };
struct MethodRow {
    Method method;
    std::string_view name, what;
    /// Of a published method whose only layout has one rotated key for all heads.
    std::optional<SharedKeyBasis> basis = std::nullopt;
};
inline constexpr std::array<MethodRow, 5> kMethods = {{
    {Method::aligned, "aligned",
     "chooses what rotates, rope-dim and kv-rank on your text, and aligns each layer with the original's"},
    {Method::mha2mla, "mha2mla", "the paper's: 2-norm pairs, rope-dim head_dim/8, kv-rank head_dim/2, joint SVD"},
    {Method::transmla, "transmla",
     "TransMLA's: principal components of the keys of all heads rotate, balanced PCA of the others and the values; "
     "layout deepseek",
     SharedKeyBasis::transmla},
    {Method::transmla_v1, "transmla-v1",
     "the first TransMLA's: an MLA of the same cache that computes what the original computes; layout deepseek",
     SharedKeyBasis::replicated},
    {Method::transmla_v1_identity, "transmla-v1-identity",
     "as transmla-v1, without the SVD: the latent is the values themselves", SharedKeyBasis::replicated_identity},
}};
static_assert(in_order(kMethods, &MethodRow::method));

/// Default share of the KV cache to remove.
inline constexpr double kDefaultReduction = 0.6875;

/// Everything is optional: a setting that is given with its default value counts as given.
struct ConversionRequest {
    std::optional<Method> method;
    std::optional<double> kv_reduction;
    std::optional<std::int64_t> rope_dim, kv_rank;
    std::optional<std::string_view> quality;       // of aligned
    std::optional<std::string_view> layout;        // LatentLayout::name; absent: the method's
    std::optional<RopeFrequencies> frequencies;    // of a rotated key that all heads share
    std::optional<LatentNorm> latent_norm;         // of layout deepseek
    bool pad = false, without_bias = false;        // of layout deepseek, see AlignOptions
    std::optional<std::int64_t> samples, seq_len;  // of text, for aligned
    std::optional<Dtype> dtype;
    bool reference_config = false;  // of layout mha2mla, see ConversionPlan
    // Stages: to give one selects mha2mla with that stage replaced.
    std::optional<std::string> rope;
    std::optional<std::int64_t> uniform_start;
    std::optional<Factorization> factorization;
    std::optional<SigmaPlacement> sigma;
    std::optional<SvdMethod> svd_method;
    std::optional<double> svd_excess;
    std::optional<KvBalance> balance;
    std::optional<NopePhase> nope_phase;
    bool gqa2mha = false;                         // StagedPlan::query_head_keys
    bool from_stats = false, from_ranks = false;  // not from text, but from statistics or ranks that are there

    /// The method that is named, or what the stages that are named select.
    [[nodiscard]] const MethodRow& method_row() const;
    /// Whether layers come from an Aligner: all methods but mha2mla.
    [[nodiscard]] bool aligned() const { return method_row().method != Method::mha2mla; }
    /// The layout that is named, or the method's: DeepSeek's where layers are aligned. @throws Error{usage}
    [[nodiscard]] const LatentLayout& latent_layout() const;
    /// The stages of a conversion that is not aligned: what is given, or the paper's.
    [[nodiscard]] std::string selection() const { return rope.value_or("2-norm"); }
    [[nodiscard]] Factorization joint_or_given() const { return factorization.value_or(Factorization::joint); }
    [[nodiscard]] SvdOptions svd() const;
};

/// A setting by which a stage is named.
struct StageSetting {
    std::string_view name;  // in recipes
    bool (*given)(const ConversionRequest&);
    /// Whether its value is what `aligned` uses anyway, so that it may stand beside that method.
    bool (*is_aligneds)(const ConversionRequest&) = nullptr;
};
[[nodiscard]] std::span<const StageSetting> stage_settings();
/// The first setting that names a stage which `aligned` decides itself; null if there is none.
[[nodiscard]] const StageSetting* named_stage(const ConversionRequest& request);

/// A setting that has an effect only together with others.
struct SettingRule {
    std::string_view name;
    bool (*given)(const ConversionRequest&);
    bool (*has_effect)(const ConversionRequest&);
    std::string_view needs;  // "svd-method fast": another setting and its value
};
[[nodiscard]] std::span<const SettingRule> setting_rules();

/// @throws Error{usage} for settings that do not go together: a budget that is given twice, a stage with the method
/// aligned, a setting that has no effect.
void check_request(const ConversionRequest& request);

/// The method of a plan.
[[nodiscard]] const MethodRow& method_of(const ConversionPlan& plan);

/// The plan for a model of this shape. Where no layout is asked for and the model has a rule that DeepSeek's block has
/// not, the method aligned takes layout mha2mla. Where the output is F16, which cannot hold the numbers of latent-norm
/// identity, it takes `trained` if none is asked for and queries have no biases.
/// @param source dtype of the model's projections; absent: not known
/// @throws Error{usage} as check_request(), and for a budget that leaves too little.
[[nodiscard]] ConversionPlan decide(const ConversionRequest& asked, const ModelConfig& config,
                                    std::optional<Dtype> source = std::nullopt);

}  // namespace mha2mla
