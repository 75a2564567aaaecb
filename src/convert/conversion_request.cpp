#include "mha2mla/conversion_request.hpp"

#include <algorithm>
#include <cmath>

#include "layout.hpp"
#include "mha2mla/error.hpp"

namespace mha2mla {
namespace {

using Request = ConversionRequest;

constexpr std::array<StageSetting, 11> kStages = {{
    {"rope", [](const Request& request) { return request.rope.has_value(); },
     [](const Request& request) { return *request.rope == "attention"; }},
    {"svd", [](const Request& request) { return request.factorization.has_value(); },
     [](const Request& request) { return *request.factorization == Factorization::whitened; }},
    {"uniform-start", [](const Request& request) { return request.uniform_start.has_value(); }},
    {"kv-balance", [](const Request& request) { return request.balance.has_value(); }},
    {"nope-phase", [](const Request& request) { return request.nope_phase.has_value(); }},
    {"sigma", [](const Request& request) { return request.sigma.has_value(); }},
    {"svd-method", [](const Request& request) { return request.svd_method.has_value(); }},
    {"svd-excess", [](const Request& request) { return request.svd_excess.has_value(); }},
    {"gqa2mha", [](const Request& request) { return request.gqa2mha; }},
    {"stats", [](const Request& request) { return request.from_stats; }},
    {"rank-file", [](const Request& request) { return request.from_ranks; }},
}};

bool factorises(const Request& request) { return request.joint_or_given() != Factorization::none; }

constexpr std::string_view kSvd = "svd other than none";
bool is_refined(const Request& request) { return request.method_row().method == Method::aligned; }
bool has_shared_key(const Request& request) { return request.latent_layout().shared_rope_key; }

constexpr std::array<SettingRule, 15> kRules = {{
    {"layout", [](const Request& request) { return request.layout.has_value(); },
     [](const Request& request) { return is_refined(request) || has_shared_key(request) == request.aligned(); },
     "method aligned"},
    {"quality", [](const Request& request) { return request.quality.has_value(); }, is_refined, "method aligned"},
    {"rope-frequencies", [](const Request& request) { return request.frequencies.has_value(); },
     [](const Request& request) { return is_refined(request) && has_shared_key(request); },
     "method aligned and layout deepseek"},
    {"latent-norm", [](const Request& request) { return request.latent_norm.has_value(); },
     [](const Request& request) { return is_refined(request) && has_shared_key(request); },
     "method aligned and layout deepseek"},
    {"pad", [](const Request& request) { return request.pad; },
     [](const Request& request) { return is_refined(request) && has_shared_key(request); },
     "method aligned and layout deepseek"},
    {"without-bias", [](const Request& request) { return request.without_bias; },
     [](const Request& request) { return is_refined(request) && has_shared_key(request); },
     "method aligned and layout deepseek"},
    {"reference-config", [](const Request& request) { return request.reference_config; },
     [](const Request& request) { return !has_shared_key(request); }, "layout mha2mla"},
    {"gqa2mha", [](const Request& request) { return request.gqa2mha; },
     [](const Request& request) { return request.selection() == "2-norm"; }, "rope 2-norm"},
    {"gqa2mha", [](const Request& request) { return request.gqa2mha; },
     [](const Request& request) { return request.reference_config; }, "reference-config"},
    {"uniform-start", [](const Request& request) { return request.uniform_start.has_value(); },
     [](const Request& request) { return request.selection() == "uniform"; }, "rope uniform"},
    {"kv-rank", [](const Request& request) { return request.kv_rank.has_value(); }, factorises, kSvd},
    {"kv-balance", [](const Request& request) { return request.balance.has_value(); },
     [](const Request& request) { return row_of(request.joint_or_given()).needs_moments(); },
     "svd whitened or weighted"},
    {"sigma", [](const Request& request) { return request.sigma.has_value(); }, factorises, kSvd},
    {"svd-method", [](const Request& request) { return request.svd_method.has_value(); }, factorises, kSvd},
    {"svd-excess", [](const Request& request) { return request.svd_excess.has_value(); },
     [](const Request& request) { return factorises(request) && request.svd().method == SvdMethod::fast; },
     "svd-method fast"},
}};

void check_budget(const Request& request) {
    if (request.kv_reduction && request.rope_dim && request.kv_rank) {
        throw Error(ErrorCode::usage, "kv-reduction, rope-dim and kv-rank say the same twice; leave one out");
    }
    const FactorizationRow& row = row_of(request.joint_or_given());
    if (request.kv_reduction && row.leaves_part_whole()) {
        throw Error(ErrorCode::usage, "kv-reduction does not go with svd " + std::string(row.name) +
                                          ", which leaves a part whole; give rope-dim and kv-rank");
    }
}

void check_form(const Request& request) {
    if (request.pad && (request.kv_reduction || request.rope_dim || request.kv_rank)) {
        throw Error(ErrorCode::usage, "pad sets rope-dim " + std::to_string(kKernelSplit.rope_dim) + " and kv-rank " +
                                          std::to_string(kKernelSplit.kv_rank) +
                                          "; leave out kv-reduction, rope-dim and kv-rank");
    }
    if (request.without_bias && request.latent_norm == LatentNorm::constant) {
        throw Error(ErrorCode::usage, "latent-norm constant is made by a bias, and does not go with without-bias");
    }
}

bool saves_nothing(const Request& request) {
    const auto basis = request.method_row().basis;
    return basis == SharedKeyBasis::replicated || basis == SharedKeyBasis::replicated_identity;
}

AlignRequest align_request(const Request& asked, const ModelConfig& config) {
    const auto basis = asked.method_row().basis;
    const std::string_view usual = basis ? "none" : align_qualities().front().name;
    const AlignQuality& quality = find_align_quality(asked.quality.value_or(usual));
    const bool both = asked.rope_dim && asked.kv_rank;
    AlignRequest request = usual_request(
        config, {both || asked.pad || saves_nothing(asked) ? 0 : asked.kv_reduction.value_or(kDefaultReduction),
                 asked.rope_dim, asked.kv_rank, quality, &asked.latent_layout(),
                 asked.frequencies.value_or(RopeFrequencies::engine), basis.value_or(SharedKeyBasis::balanced),
                 asked.latent_norm.value_or(LatentNorm::identity), asked.pad, asked.without_bias});
    if (asked.seq_len) {
        const std::int64_t tokens = request.windows * request.seq_len;
        request.seq_len = *asked.seq_len;
        request.windows = std::max<std::int64_t>(1, tokens / request.seq_len);
    }
    request.windows = asked.samples.value_or(request.windows);
    return request;
}

void check_query_head_keys(const ConversionPlan& plan, const ModelConfig& config) {
    const StagedPlan& stages = *plan.staged();
    if (!stages.query_head_keys) return;
    if (config.group_size() == 1) {
        throw Error(ErrorCode::usage, "gqa2mha has no effect here: each query head of this model has keys of its own");
    }
    if (stages.guided()) {
        throw Error(ErrorCode::usage,
                    "gqa2mha goes with the reference implementation's factorisations alone: svd none, "
                    "joint, split, only-key or only-value, and nope-phase zero");
    }
    if (config.rules.layers.front().attention.qkv_bias) {
        throw Error(ErrorCode::unsupported,
                    "gqa2mha: the reference implementation's code for repeated keys fails on keys with biases, as "
                    "model_type '" +
                        config.model_type + "' has them; convert without gqa2mha");
    }
}

/// d_r and d_kv: as given, the paper's, or what kv_reduction leaves.
Split split_of(const Request& request, const ModelConfig& config) {
    Split split{request.rope_dim.value_or(default_rope_dim(config)), request.kv_rank.value_or(default_kv_rank(config))};
    if (!request.kv_reduction) return split;
    const auto left = static_cast<std::int64_t>(
        std::floor(2 * static_cast<double>(config.head_dim) * (1 - *request.kv_reduction) + 1e-9));
    const std::int64_t rotated = request.gqa2mha ? config.group_size() : 1;  // keys of a KV head
    if (request.kv_rank) {
        split.rope_dim = (left - split.kv_rank) / rotated / 2 * 2;
    } else {
        split.kv_rank = left - rotated * split.rope_dim;
    }
    if (row_of(request.joint_or_given()).halves_rank()) split.kv_rank = split.kv_rank / 2 * 2;
    if (split.rope_dim < 0 || split.kv_rank < 1) {
        throw Error(ErrorCode::usage,
                    "kv-reduction leaves " + std::to_string(left) + " numbers per token and KV head, of which " +
                        (request.kv_rank ? "kv-rank takes " + std::to_string(split.kv_rank)
                                         : "rope-dim takes " + std::to_string(rotated * split.rope_dim)) +
                        "; save less, or give another " + (request.kv_rank ? "kv-rank" : "rope-dim"));
    }
    return split;
}

}  // namespace

const MethodRow& ConversionRequest::method_row() const {
    const Method used = method.value_or(named_stage(*this) == nullptr ? Method::aligned : Method::mha2mla);
    return kMethods.at(static_cast<std::size_t>(used));
}

const LatentLayout& ConversionRequest::latent_layout() const {
    if (layout) return find_layout(*layout);
    return aligned() ? deepseek_layout() : reference_layout();
}

SvdOptions ConversionRequest::svd() const {
    const SvdOptions usual;
    return {sigma.value_or(usual.sigma), svd_method.value_or(usual.method), svd_excess.value_or(usual.max_excess)};
}

std::span<const StageSetting> stage_settings() { return kStages; }

const StageSetting* named_stage(const ConversionRequest& request) {
    for (const StageSetting& row : kStages) {
        const bool same = request.method && row.is_aligneds != nullptr;
        if (row.given(request) && !(same && row.is_aligneds(request))) return &row;
    }
    return nullptr;
}

std::span<const SettingRule> setting_rules() { return kRules; }

void check_request(const ConversionRequest& request) {
    const StageSetting* stage = named_stage(request);
    if (request.aligned() && stage != nullptr) {
        throw Error(ErrorCode::usage, std::string(stage->name) + " does not go with method " +
                                          std::string(request.method_row().name) +
                                          ", which decides that itself; leave it out, or name method mha2mla");
    }
    if (saves_nothing(request) && (request.kv_reduction || request.rope_dim || request.kv_rank)) {
        throw Error(ErrorCode::usage, "method " + std::string(request.method_row().name) +
                                          " leaves the KV cache as large as it is; leave out kv-reduction, rope-dim "
                                          "and kv-rank, or choose another method");
    }
    check_budget(request);
    check_form(request);
    for (const SettingRule& rule : kRules) {
        if (!rule.given(request) || rule.has_effect(request)) continue;
        throw Error(ErrorCode::usage, std::string(rule.name) + " has no effect here: it needs " +
                                          std::string(rule.needs) + "; add that, or leave it out");
    }
}

const MethodRow& method_of(const ConversionPlan& plan) {
    const auto same = [&](const MethodRow& row) {
        if (plan.staged() != nullptr) return row.method == Method::mha2mla;
        if (plan.refined()) return row.method == Method::aligned;
        return row.basis == plan.aligned()->options.basis;
    };
    return *std::find_if(kMethods.begin(), kMethods.end(), same);
}

ConversionPlan decide(const ConversionRequest& asked, const ModelConfig& config, std::optional<Dtype> source) {
    ConversionRequest request = asked;
    if (is_refined(request) && !request.layout && !deepseek_obstacle(config).empty()) {
        request.layout = reference_layout().name;
    }
    if (!request.latent_norm && is_refined(request) && has_shared_key(request) && source &&
        output_dtype(*source, request.dtype) == Dtype::f16) {
        const bool biased_queries = config.rules.layers.front().attention.qkv_bias && !request.without_bias;
        if (!biased_queries) request.latent_norm = LatentNorm::trained;
    }
    check_request(request);
    if (request.aligned()) return {align_request(request, config), request.dtype, request.reference_config};
    const Split split = split_of(request, config);
    StagedPlan stages;
    stages.rope = {request.selection(), split.rope_dim, request.uniform_start.value_or(0)};
    stages.kv_rank = split.kv_rank;
    stages.factorization = request.joint_or_given();
    stages.svd = request.svd();
    stages.balance = request.balance.value_or(KvBalance());
    stages.nope_phase = request.nope_phase.value_or(NopePhase::zero);
    stages.query_head_keys = request.gqa2mha;
    ConversionPlan plan{stages, request.dtype, request.reference_config};
    check_query_head_keys(plan, config);
    return plan;
}

}  // namespace mha2mla
