#include "method.hpp"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "mha2mla/error.hpp"

namespace mha2mla::tool {
namespace {

/// Options that name a stage: without --method they select mha2mla with that stage replaced.
struct StageOption {
    std::string_view option;
    bool (*given)(const ConvertFlags&);
    /// Whether its value is what `aligned` uses anyway, so that it may stand beside --method aligned.
    bool (*is_aligneds)(const ConvertFlags&) = nullptr;
};
constexpr std::array<StageOption, 10> kStageOptions = {{
    {"--rope", [](const ConvertFlags& flags) { return flags.rope.has_value(); },
     [](const ConvertFlags& flags) { return *flags.rope == "attention"; }},
    {"--svd", [](const ConvertFlags& flags) { return flags.latent.factorization.has_value(); },
     [](const ConvertFlags& flags) { return *flags.latent.factorization == Factorization::whitened; }},
    {"--uniform-start", [](const ConvertFlags& flags) { return flags.uniform_start.has_value(); }},
    {"--kv-balance", [](const ConvertFlags& flags) { return flags.balance.has_value(); }},
    {"--nope-phase", [](const ConvertFlags& flags) { return flags.nope_phase.has_value(); }},
    {"--sigma", [](const ConvertFlags& flags) { return flags.sigma.has_value(); }},
    {"--svd-method", [](const ConvertFlags& flags) { return flags.svd_method.has_value(); }},
    {"--svd-excess", [](const ConvertFlags& flags) { return flags.svd_excess.has_value(); }},
    {"--stats", [](const ConvertFlags& flags) { return !flags.stats.empty(); }},
    {"--rank-file", [](const ConvertFlags& flags) { return !flags.rank_file.empty(); }},
}};

bool factorises(const ConvertFlags& flags) { return flags.factorization() != Factorization::none; }
bool evaluates(const ConvertFlags& flags) { return flags.evaluation.given(); }
bool calibrates(const ConvertFlags& flags) { return flags.calibration.given(); }

constexpr std::string_view kSvd = "an --svd other than none";
constexpr std::string_view kEvalText = "--eval-text or --eval-tokens";
constexpr std::string_view kCalibrationText = "--calibration-text or --calibration-tokens";
/// Which option of convert belongs to which stage, method or text.
constexpr std::array<OptionRule<ConvertFlags>, 11> kRules = {{
    {"--quality", [](const ConvertFlags& flags) { return flags.quality.has_value(); },
     [](const ConvertFlags& flags) { return flags.aligned(); }, "--method aligned"},
    {"--uniform-start", kStageOptions[2].given,
     [](const ConvertFlags& flags) { return flags.selection() == "uniform"; }, "--rope uniform"},
    {"--kv-rank", [](const ConvertFlags& flags) { return flags.latent.kv_rank.has_value(); }, factorises, kSvd},
    {"--kv-balance", kStageOptions[3].given,
     [](const ConvertFlags& flags) { return row_of(flags.factorization()).needs_moments(); },
     "--svd whitened or weighted"},
    {"--sigma", kStageOptions[5].given, factorises, kSvd},
    {"--svd-method", kStageOptions[6].given, factorises, kSvd},
    {"--svd-excess", kStageOptions[7].given,
     [](const ConvertFlags& flags) { return factorises(flags) && flags.svd().method == SvdMethod::fast; },
     "--svd-method fast"},
    {"--samples", [](const ConvertFlags& flags) { return flags.samples.samples || flags.samples.until_settled; },
     calibrates, kCalibrationText},
    {"--seq-len", [](const ConvertFlags& flags) { return flags.samples.seq_len.has_value(); }, calibrates,
     kCalibrationText},
    {"--eval-context", [](const ConvertFlags& flags) { return flags.evaluation_windows.context.has_value(); },
     evaluates, kEvalText},
    {"--eval-max-windows", [](const ConvertFlags& flags) { return flags.evaluation_windows.max_windows.has_value(); },
     evaluates, kEvalText},
}};

/// The first option that names a stage which `aligned` decides itself; empty if there is none.
std::string named_stage(const ConvertFlags& flags) {
    for (const StageOption& row : kStageOptions) {
        const bool same = flags.method && row.is_aligneds != nullptr;
        if (row.given(flags) && !(same && row.is_aligneds(flags))) return std::string(row.option);
    }
    return "";
}

void refuse_stages(const ConvertFlags& flags) {
    const std::string stage = named_stage(flags);
    if (stage.empty()) return;
    throw Error(ErrorCode::usage, stage +
                                      " does not go with --method aligned, which chooses and refines "
                                      "on text itself; leave it out, or name --method mha2mla");
}

void require_text(const ConvertFlags& flags) {
    if (!flags.calibration.given()) {
        throw Error(
            ErrorCode::usage,
            "the default method aligns each layer on text: give --calibration-text FILE or "
            "--calibration-tokens FILE; without any text there is --method mha2mla --rope uniform (or high, low)");
    }
    if (flags.samples.until_settled) {
        throw Error(ErrorCode::usage,
                    "--samples auto watches the 2-norm selection and does not go with --method aligned; "
                    "give a number");
    }
}

}  // namespace

std::span<const OptionRule<ConvertFlags>> conversion_rules() { return kRules; }

std::string stage_options() {
    std::string text;
    for (const StageOption& row : kStageOptions) text += (text.empty() ? "" : ", ") + std::string(row.option);
    return text;
}

bool ConvertFlags::aligned() const { return method ? *method == Method::aligned : named_stage(*this).empty(); }

void check_choices(const ConvertFlags& flags) {
    if (flags.aligned()) refuse_stages(flags);
    if (flags.kv_reduction && flags.latent.rope_dim && flags.latent.kv_rank) {
        throw Error(ErrorCode::usage, "--kv-reduction, --rope-dim and --kv-rank say the same twice; leave one out");
    }
    const bool whole_part = row_of(flags.factorization()).leaves_part_whole();
    if (flags.kv_reduction && whole_part) {
        throw Error(ErrorCode::usage, "--kv-reduction does not go with --svd " +
                                          std::string(row_of(flags.factorization()).name) +
                                          ", which leaves a part whole; give --rope-dim and --kv-rank");
    }
    check_rules(kRules, flags);
}

void check_method(const ConvertFlags& flags) {
    check_choices(flags);
    if (flags.aligned()) return require_text(flags);
    if (!flags.method) {
        spdlog::info("{} names a stage: nothing is refined, and what is not named is as in --method mha2mla",
                     named_stage(flags));
    }
}

AlignRequest align_request(const ConvertFlags& flags, const ModelConfig& config) {
    const AlignQuality& quality = flags.quality ? find_align_quality(*flags.quality) : align_qualities().front();
    const bool both = flags.latent.rope_dim && flags.latent.kv_rank;
    AlignRequest request = usual_request(config, {both ? 0 : flags.kv_reduction.value_or(kDefaultReduction),
                                                  flags.latent.rope_dim, flags.latent.kv_rank, quality});
    if (flags.samples.seq_len) {
        const std::int64_t tokens = request.windows * request.seq_len;
        request.seq_len = *flags.samples.seq_len;
        request.windows = std::max<std::int64_t>(1, tokens / request.seq_len);
    }
    request.windows = flags.samples.samples.value_or(request.windows);
    return request;
}

Budget budget_of(const ConvertFlags& flags, const ModelConfig& config) {
    Budget budget{flags.latent.rope_dim.value_or(default_rope_dim(config)),
                  flags.latent.kv_rank.value_or(default_kv_rank(config))};
    if (!flags.kv_reduction) return budget;
    const auto left = static_cast<std::int64_t>(
        std::floor(2 * static_cast<double>(config.head_dim) * (1 - *flags.kv_reduction) + 1e-9));
    if (flags.latent.kv_rank) {
        budget.rope_dim = (left - budget.kv_rank) / 2 * 2;
    } else {
        budget.kv_rank = left - budget.rope_dim;
    }
    if (flags.factorization() == Factorization::split) budget.kv_rank = budget.kv_rank / 2 * 2;
    if (budget.rope_dim < 0 || budget.kv_rank < 1) {
        throw Error(ErrorCode::usage,
                    "--kv-reduction leaves " + std::to_string(left) + " numbers per token and KV head, of which " +
                        (flags.latent.kv_rank ? "--kv-rank takes " + std::to_string(budget.kv_rank)
                                              : "rope-dim takes " + std::to_string(budget.rope_dim)) +
                        "; save less, or give another " + (flags.latent.kv_rank ? "--kv-rank" : "--rope-dim"));
    }
    return budget;
}

}  // namespace mha2mla::tool
