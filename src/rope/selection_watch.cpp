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

}  // namespace mha2mla
