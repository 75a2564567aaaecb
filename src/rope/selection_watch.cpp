#include "mha2mla/rope.hpp"

namespace mha2mla {

bool SelectionWatch::add(const CalibrationStats& stats) {
    const PairRanks ranks = two_norm_ranks(stats);
    layers_.resize(static_cast<std::size_t>(stats.layers));
    unsettled_ = 0;
    for (std::int64_t l = 0; l < stats.layers; ++l) {
        std::vector<bool> kept;
        for (std::int64_t head = 0; head < stats.kv_heads; ++head) {
            for (std::int64_t k = 0; k < stats.pairs; ++k) kept.push_back(ranks.rank(l, head, k) < rope_dim_ / 2);
        }
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
