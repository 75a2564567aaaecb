#include "mha2mla/rope.hpp"

namespace mha2mla {

bool SelectionWatch::add(const CalibrationStats& stats) {
    const PairRanks ranks = two_norm_ranks(stats);
    layers_.resize(static_cast<std::size_t>(stats.layers));
    unsettled_ = 0;
    for (std::int64_t l = 0; l < stats.layers; ++l) {
        LayerPairs kept = kept_pairs(ranks, l, rope_dim_);
        Layer& layer = layers_[static_cast<std::size_t>(l)];
        if (kept == layer.kept) {
            ++layer.same_rounds;
        } else {
            layer = {std::move(kept), 0, stats.sequences};
        }
        if (layer.same_rounds < 2 || stats.sequences < 2 * layer.since) ++unsettled_;
    }
    return unsettled_ == 0;
}

CalibrationStats calibrate_until_settled(const Model& model, std::span<const TokenId> ids, std::int64_t seq_len,
                                         std::int64_t rope_dim, Observer& observer, const CalibrationOptions& options) {
    SelectionWatch watch(rope_dim);
    const auto settled = [&](const CalibrationStats& stats) { return watch.add(stats); };
    CalibrationStats stats = calibrate_in_rounds(model, ids, seq_len, observer, settled, options);
    stats.settling = {rope_dim, watch.unsettled_layers()};
    return stats;
}

}  // namespace mha2mla
