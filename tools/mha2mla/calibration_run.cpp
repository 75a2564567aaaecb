#include "calibration_run.hpp"

#include <spdlog/spdlog.h>

#include "mha2mla/error.hpp"
#include "mha2mla/rope.hpp"

namespace mha2mla::tool {
namespace {

void report_settling(const CalibrationStats& stats, Context& context) {
    const auto& [rope_dim, unsettled] = *stats.settling;
    const std::string where =
        " for rope-dim " + std::to_string(rope_dim) + " after " + std::to_string(stats.sequences) + " sequences";
    if (unsettled == 0) {
        spdlog::info("the 2-norm selection settled{}", where);
    } else {
        context.observer.warn("the 2-norm selection of " + std::to_string(unsettled) + " of " +
                              std::to_string(stats.layers) + " layers had not settled" + where +
                              "; the text ended, and more text is better");
    }
}

}  // namespace

CalibrationStats run_calibration(const Model& model, const TokenOptions& tokens, const SampleFlags& samples,
                                 std::int64_t rope_dim, const Gathered& gather, Context& context) {
    check_rope_dim(model.config, rope_dim);
    const std::int64_t trained = model.config.max_position_embeddings;
    const std::int64_t seq_len = samples.seq_len.value_or(std::min<std::int64_t>(2048, trained));
    if (seq_len > trained) {
        context.observer.warn("--seq-len " + std::to_string(seq_len) + " is longer than the model's " +
                              std::to_string(trained) + " positions");
    }
    const std::int64_t wanted =
        samples.until_settled ? kMostSettlingSequences : samples.samples.value_or(SampleFlags::kDefaultSamples);
    auto ids = load_tokens(tokens, model, wanted * seq_len);
    const auto available = static_cast<std::int64_t>(ids.size()) / seq_len;
    if (available == 0) {
        throw Error(ErrorCode::usage, tokens.name() + ": " + std::to_string(ids.size()) +
                                          " tokens are less than one sequence of " + std::to_string(seq_len) +
                                          "; give more text or a smaller --seq-len");
    }
    if (available < wanted && !samples.until_settled) {
        context.observer.warn(tokens.name() + " has only " + std::to_string(available) + " sequences of " +
                              std::to_string(seq_len) + " tokens, not " + std::to_string(wanted));
    }
    ids.resize(static_cast<std::size_t>(available * seq_len));
    const CalibrationOptions options{
        .max_memory = context.max_memory, .spill_directory = {}, .inputs = gather.inputs()};
    CalibrationStats stats = samples.until_settled
                                 ? calibrate_until_settled(model, ids, seq_len, rope_dim, context.observer, options)
                                 : calibrate(model, ids, seq_len, context.observer, options);
    if (stats.settling) report_settling(stats, context);
    stats.model = model.checkpoint.directory().string();
    stats.data = tokens.name();
    if (gather.attention_order) add_attention_ranks(model, stats, context.observer);
    return stats;
}

}  // namespace mha2mla::tool
