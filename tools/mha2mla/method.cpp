#include "method.hpp"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <cmath>

#include "mha2mla/error.hpp"

namespace mha2mla::tool {
namespace {

/// The first option that names a stage which `aligned` decides itself, or null. What names the stage as `aligned` has
/// it anyway counts only where no method is named.
const char* named_stage(const ConvertFlags& flags) {
    const SvdOptions usual;
    const bool same = flags.method.has_value();
    if (flags.rope && !(same && *flags.rope == "attention")) return "--rope";
    if (flags.latent.factorization && !(same && *flags.latent.factorization == Factorization::whitened)) return "--svd";
    if (flags.uniform_start != 0) return "--uniform-start";
    if (flags.balance) return "--kv-balance";
    if (flags.nope_phase != NopePhase::zero) return "--nope-phase";
    if (flags.svd.sigma != usual.sigma) return "--sigma";
    if (flags.svd.method != usual.method) return "--svd-method";
    if (flags.svd.max_excess != usual.max_excess) return "--svd-excess";
    if (!flags.stats.empty()) return "--stats";
    if (!flags.rank_file.empty()) return "--rank-file";
    return nullptr;
}

void check_aligned(const ConvertFlags& flags) {
    if (const char* stage = named_stage(flags)) {
        throw Error(ErrorCode::usage, std::string(stage) +
                                          " does not go with --method aligned, which chooses and refines "
                                          "on text itself; leave it out, or name --method mha2mla");
    }
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

void check_stages(const ConvertFlags& flags, Context& context) {
    if (flags.quality) throw Error(ErrorCode::usage, "--quality only goes with --method aligned");
    if (flags.uniform_start != 0 && flags.selection() != "uniform") {
        throw Error(ErrorCode::usage, "--uniform-start only goes with --rope uniform");
    }
    if (flags.balance && !row_of(flags.factorization()).needs_moments()) {
        throw Error(ErrorCode::usage, "--kv-balance only goes with --svd whitened and weighted");
    }
    const bool whole_part = row_of(flags.factorization()).leaves_part_whole();
    if (flags.kv_reduction && whole_part) {
        throw Error(ErrorCode::usage, "--kv-reduction does not go with --svd " +
                                          std::string(row_of(flags.factorization()).name) +
                                          ", which leaves a part whole; give --rope-dim and --kv-rank");
    }
    if (flags.factorization() == Factorization::none && flags.latent.kv_rank) {
        context.observer.warn("--kv-rank has no effect with --svd none");
    }
    if (!flags.method) {
        spdlog::info("{} names a stage: nothing is refined, and what is not named is as in --method mha2mla",
                     named_stage(flags));
    }
}

}  // namespace

bool ConvertFlags::aligned() const { return method ? *method == Method::aligned : named_stage(*this) == nullptr; }

void check_method(const ConvertFlags& flags, Context& context) {
    if (flags.kv_reduction && flags.latent.rope_dim && flags.latent.kv_rank) {
        throw Error(ErrorCode::usage, "--kv-reduction, --rope-dim and --kv-rank say the same twice; leave one out");
    }
    flags.aligned() ? check_aligned(flags) : check_stages(flags, context);
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
