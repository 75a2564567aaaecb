#include "calibration_run.hpp"

#include <spdlog/spdlog.h>

#include "mha2mla/error.hpp"
#include "mha2mla/rope.hpp"

namespace mha2mla::tool {
namespace {

/// The largest number of sequences for `--samples auto`.
constexpr std::int64_t kMostSamples = 16 * SampleFlags::kDefaultSamples;

CalibrationStats calibrate_until_settled(const Model& model, std::span<const TokenId> ids, std::int64_t seq_len,
                                         std::int64_t rope_dim, const CalibrationOptions& options, Context& context) {
    SelectionWatch watch(rope_dim);
    const auto settled = [&](const CalibrationStats& stats) { return watch.add(stats); };
    CalibrationStats stats = calibrate_in_rounds(model, ids, seq_len, context.observer, settled, options);
    stats.settling = {rope_dim, watch.unsettled_layers()};
    const std::string where =
        " for rope-dim " + std::to_string(rope_dim) + " after " + std::to_string(stats.sequences) + " sequences";
    if (watch.unsettled_layers() == 0) {
        spdlog::info("the 2-norm selection settled{}", where);
    } else {
        context.observer.warn("the 2-norm selection of " + std::to_string(watch.unsettled_layers()) + " of " +
                              std::to_string(stats.layers) + " layers had not settled" + where +
                              "; the text ended, and more text is better");
    }
    return stats;
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
        samples.until_settled ? kMostSamples : samples.samples.value_or(SampleFlags::kDefaultSamples);
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
                                 ? calibrate_until_settled(model, ids, seq_len, rope_dim, options, context)
                                 : calibrate(model, ids, seq_len, context.observer, options);
    stats.model = model.checkpoint.directory().string();
    stats.data = tokens.name();
    if (gather.attention_order) add_attention_ranks(model, stats, context.observer);
    return stats;
}

}  // namespace mha2mla::tool
