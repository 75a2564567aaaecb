#include "conversion.hpp"

#include <spdlog/spdlog.h>

#include "method.hpp"
#include "mha2mla/error.hpp"
#include "mha2mla/evaluate.hpp"
#include "mha2mla/fingerprint.hpp"
#include "mha2mla/record.hpp"
#include "output.hpp"

namespace mha2mla::tool {
namespace fs = std::filesystem;
namespace {

using Json = nlohmann::ordered_json;

/// What is evaluated, so that it is known whether that was done.
Json describe_evaluation(const ConvertFlags& flags) {
    const TextSource& data = flags.evaluation;
    const auto or_null = [](const auto& value) { return value ? Json(*value) : Json(); };
    Json json = {{"hash", file_hash(data.text.empty() ? data.tokens : data.text)},
                 {"tokenizer", data.tokenizer.empty() ? Json() : Json(file_hash(data.tokenizer))},
                 {"token_format", kTokenFormats.at(static_cast<std::size_t>(data.format)).name},
                 {"asked_context", or_null(flags.evaluation_windows.context)},
                 {"asked_windows", or_null(flags.evaluation_windows.max_windows)}};
    if (!data.field.empty()) json["text_field"] = data.field;
    return json;
}

bool is_evaluated(const ConvertFlags& flags) {
    if (!flags.evaluation.given()) return true;
    const Json measured = measurement_at(flags.destination);
    return measured.is_object() && measured.value("of", Json()) == describe_evaluation(flags);
}

/// With --eval-text or --eval-tokens: evaluates both checkpoints, unless the output's record has that already.
void evaluate_if_asked(const Model& source, const ConvertFlags& flags, Context& context) {
    if (is_evaluated(flags)) return;
    std::int64_t length = 0;
    const auto windows = load_windows(flags.evaluation, flags.evaluation_windows, source, context, length);
    const VerifyResult result = verify(source, Model::open(flags.destination), windows, length, context.observer);
    Json measured = {{"data", fs::path(flags.evaluation.name()).filename().string()}};
    measured.update(verify_json(result));
    measured["of"] = describe_evaluation(flags);
    record_measurement(flags.destination, measured);
}

/// Windows of calibration text as `eval` cuts them, so that the first tokens of a sequence are aligned too.
std::vector<TokenId> align_windows(const Conversion& conversion, const ConvertFlags& flags) {
    const AlignRequest& request = *conversion.plan.aligned();
    const auto ids = load_tokens_saying_how(flags.statistics.text, conversion.model, request.windows * request.seq_len);
    if (std::ssize(ids) + 1 < request.seq_len) {
        throw Error(ErrorCode::usage, "the calibration text has " + std::to_string(ids.size()) +
                                          " tokens, fewer than one sequence of " + std::to_string(request.seq_len) +
                                          "; give more text or a smaller --seq-len");
    }
    return make_windows(conversion.model.config, ids, {request.seq_len, request.windows});
}

ConvertReport run_stages(ConversionJob& job, const Conversion& conversion, const ConvertFlags& flags,
                         Context& context) {
    const Statistics statistics = make_statistics(conversion.model, *conversion.plan.staged(), flags.statistics,
                                                  context.observer, context.max_memory, conversion.shared, job.ranks());
    log_settling(statistics.settling, statistics.sequences);
    return job.run(statistics.view(), context.observer);
}

ConvertReport run_aligned(ConversionJob& job, const Conversion& conversion, const ConvertFlags& flags,
                          Context& context) {
    (void)planned_memory(conversion.model.config, conversion.plan, conversion.limits.max_memory);  // or too much
    const auto aligner = job.make_aligner([&] { return align_windows(conversion, flags); }, context.observer);
    if (aligner->layer() > 0) spdlog::info("going on with layer {}: those before it are aligned", aligner->layer());
    const Split chosen = aligner->chosen();
    for (const Split& split : aligner->tried()) {
        const bool is_chosen =
            split.rope_dim == chosen.rope_dim && split.kv_rank == chosen.kv_rank && split.fold == chosen.fold;
        spdlog::info("rope-dim {} with kv-rank {}{}: error {:.6f}{}", split.rope_dim, split.kv_rank,
                     split.fold > 1 ? " in blocks of " + std::to_string(split.fold) + " pairs" : "", split.error,
                     is_chosen ? ", chosen" : "");
    }
    return job.run({nullptr, nullptr, aligner.get()}, context.observer);
}

}  // namespace

ConversionRequest ConvertFlags::asked() const {
    ConversionRequest whole = request;
    whole.samples = statistics.samples.samples;
    whole.seq_len = statistics.samples.seq_len;
    whole.from_stats = !statistics.stats.empty();
    whole.from_ranks = !statistics.rank_file.empty();
    return whole;
}

/// Absent for a model that is converted already, which is refused later.
std::optional<Dtype> dtype_of_projections(const Model& model) {
    const LayerView& layer = model.layers.front();
    if (layer.latent()) return std::nullopt;
    return layer.original_attention().k.weight->dtype;
}

Conversion prepare(const ConvertFlags& flags, Context& context, const fs::path& shared) {
    Conversion conversion{open_model(flags.source, flags.ignore_unused, context), {}, {}, {}, {}, {}, {}};
    check_method(flags);
    const ModelConfig& config = conversion.model.config;
    conversion.plan = plan_of(flags, config, dtype_of_projections(conversion.model));
    if (const std::string rule = deepseek_obstacle(config);
        !rule.empty() && !flags.request.layout && conversion.plan.aligned() != nullptr) {
        spdlog::info("model_type {} has {}, which layout {} has no place for: layout {}", config.model_type, rule,
                     deepseek_layout().name, conversion.plan.layout().name);
    }
    if (const AlignRequest* aligned = conversion.plan.aligned();
        aligned != nullptr && !flags.request.latent_norm && aligned->options.latent_norm != LatentNorm::identity) {
        spdlog::info("F16 cannot hold the numbers of --latent-norm identity: --latent-norm {}; --dtype bf16 or f32 can",
                     kLatentNorms.at(static_cast<std::size_t>(aligned->options.latent_norm)).name);
    }
    if (conversion.plan.reference_config && config.model_type == "qwen3") {
        context.observer.warn(
            "the reference implementation rotates queries and keys of Qwen3 before it norms them, so that its code "
            "makes "
            "something else of the weights than the original's; evaluations of the output do as it does");
    }
    conversion.limits = {context.max_memory, flags.max_shard_bytes, flags.overwrite, flags.resume};
    if (const AlignRequest* request = conversion.plan.aligned()) {
        Json& text = conversion.provenance.ranks_from = describe_text(flags.statistics.text);
        text["samples"] = request->windows;
        text["seq-len"] = request->seq_len;
    } else {
        const StagedPlan& stages = *conversion.plan.staged();
        with_option_names(flags.statistics.stats,
                          [&] { check_statistics(stages, flags.statistics, config, context.observer); });
        conversion.shared.needs = needed_statistics(stages);
        conversion.provenance.ranks_from = describe_statistics(stages, flags.statistics, config);
    }
    Split split;
    with_option_names({}, [&] { split = conversion.plan.splits(config).front(); });
    conversion.cost = plan_conversion(config, conversion.plan.costed(split));
    if (conversion.plan.staged() != nullptr) check_rope_dim(config, split.rope_dim);
    conversion.fingerprint =
        conversion_fingerprint(conversion.model, conversion.plan, conversion.limits, conversion.provenance);
    if (conversion.plan.staged() != nullptr && !shared.empty()) {
        conversion.shared.file = shared_statistics_file(shared, conversion.model, *conversion.plan.staged(),
                                                        flags.statistics, conversion.fingerprint);
    }
    return conversion;
}

void check_evaluation(const Conversion& conversion, const ConvertFlags& flags, Context& context) {
    if (!flags.evaluation.given()) return;
    const std::string key = conversion.model.checkpoint.directory().string() + describe_evaluation(flags).dump();
    if (!context.checked_texts.insert(key).second) return;
    WindowFlags one = flags.evaluation_windows;
    one.max_windows = 1;
    std::int64_t length = 0;
    (void)load_windows(flags.evaluation, one, conversion.model, context, length);
}

ConvertReport run_conversion(const Conversion& conversion, const ConvertFlags& flags, Context& context) {
    check_evaluation(conversion, flags, context);
    // An existing output is reported before a long calibration, not after it.
    ConversionJob job(conversion.model, flags.destination, conversion.plan, conversion.limits, conversion.provenance,
                      conversion.fingerprint);
    const bool finished = job.state() == ConversionJob::State::finished;
    const ConvertReport report = finished                               ? job.run({}, context.observer)
                                 : conversion.plan.aligned() != nullptr ? run_aligned(job, conversion, flags, context)
                                                                        : run_stages(job, conversion, flags, context);
    evaluate_if_asked(conversion.model, flags, context);
    return report;
}

bool is_done(const Conversion& conversion, const ConvertFlags& flags) {
    return finished_conversion(flags.destination, conversion.fingerprint) && is_evaluated(flags);
}

}  // namespace mha2mla::tool
