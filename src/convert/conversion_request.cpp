#include "mha2mla/conversion_request.hpp"

#include <algorithm>
#include <cmath>

#include "mha2mla/error.hpp"

namespace mha2mla {
namespace {

using Request = ConversionRequest;

constexpr std::array<StageSetting, 10> kStages = {{
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
    {"stats", [](const Request& request) { return request.from_stats; }},
    {"rank-file", [](const Request& request) { return request.from_ranks; }},
}};

bool factorises(const Request& request) { return request.joint_or_given() != Factorization::none; }

constexpr std::string_view kSvd = "svd other than none";
bool is_per_head(const Request& request) { return find_layout(*request.layout).model_type.empty(); }

constexpr std::array<SettingRule, 8> kRules = {{
    {"layout", [](const Request& request) { return request.layout.has_value(); },
     [](const Request& request) { return request.aligned() || is_per_head(request); }, "method aligned"},
    {"quality", [](const Request& request) { return request.quality.has_value(); },
     [](const Request& request) { return request.aligned(); }, "method aligned"},
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

AlignRequest align_request(const Request& asked, const ModelConfig& config) {
    const AlignQuality& quality = asked.quality ? find_align_quality(*asked.quality) : align_qualities().front();
    const LatentLayout& layout = asked.layout ? find_layout(*asked.layout) : reference_layout();
    const bool both = asked.rope_dim && asked.kv_rank;
    AlignRequest request = usual_request(config, {both ? 0 : asked.kv_reduction.value_or(kDefaultReduction),
                                                  asked.rope_dim, asked.kv_rank, quality, &layout});
    if (asked.seq_len) {
        const std::int64_t tokens = request.windows * request.seq_len;
        request.seq_len = *asked.seq_len;
        request.windows = std::max<std::int64_t>(1, tokens / request.seq_len);
    }
    request.windows = asked.samples.value_or(request.windows);
    return request;
}

/// d_r and d_kv: as given, the paper's, or what kv_reduction leaves.
Split split_of(const Request& request, const ModelConfig& config) {
    Split split{request.rope_dim.value_or(default_rope_dim(config)), request.kv_rank.value_or(default_kv_rank(config))};
    if (!request.kv_reduction) return split;
    const auto left = static_cast<std::int64_t>(
        std::floor(2 * static_cast<double>(config.head_dim) * (1 - *request.kv_reduction) + 1e-9));
    if (request.kv_rank) {
        split.rope_dim = (left - split.kv_rank) / 2 * 2;
    } else {
        split.kv_rank = left - split.rope_dim;
    }
    if (row_of(request.joint_or_given()).halves_rank()) split.kv_rank = split.kv_rank / 2 * 2;
    if (split.rope_dim < 0 || split.kv_rank < 1) {
        throw Error(ErrorCode::usage, "kv-reduction leaves " + std::to_string(left) +
                                          " numbers per token and KV head, of which " +
                                          (request.kv_rank ? "kv-rank takes " + std::to_string(split.kv_rank)
                                                           : "rope-dim takes " + std::to_string(split.rope_dim)) +
                                          "; save less, or give another " + (request.kv_rank ? "kv-rank" : "rope-dim"));
    }
    return split;
}

}  // namespace

bool ConversionRequest::aligned() const { return method ? *method == Method::aligned : named_stage(*this) == nullptr; }

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
        throw Error(ErrorCode::usage, std::string(stage->name) +
                                          " does not go with method aligned, which chooses and refines on text "
                                          "itself; leave it out, or name method mha2mla");
    }
    check_budget(request);
    for (const SettingRule& rule : kRules) {
        if (!rule.given(request) || rule.has_effect(request)) continue;
        throw Error(ErrorCode::usage, std::string(rule.name) + " has no effect here: it needs " +
                                          std::string(rule.needs) + "; add that, or leave it out");
    }
}

ConversionPlan decide(const ConversionRequest& request, const ModelConfig& config) {
    check_request(request);
    if (request.aligned()) return {align_request(request, config), request.dtype};
    const Split split = split_of(request, config);
    StagedPlan stages;
    stages.rope = {request.selection(), split.rope_dim, request.uniform_start.value_or(0)};
    stages.kv_rank = split.kv_rank;
    stages.factorization = request.joint_or_given();
    stages.svd = request.svd();
    stages.balance = request.balance.value_or(KvBalance());
    stages.nope_phase = request.nope_phase.value_or(NopePhase::zero);
    return {stages, request.dtype};
}

}  // namespace mha2mla
