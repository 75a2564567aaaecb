#include <algorithm>
#include <numeric>

#include "strategies.hpp"

namespace mha2mla {

/// S_2-norm: the r pairs of a KV head with the largest Σ mean‖q^[k]‖·mean‖k^[k]‖ (MHA2MLA, section 3.1).
PairRanks two_norm_ranks(const CalibrationStats& stats) {
    PairRanks ranks{stats.layers, stats.kv_heads, 2 * stats.pairs, {}};
    const auto scores = stats.scores();
    const auto pairs = static_cast<std::size_t>(stats.pairs);
    LayerPairs orders(static_cast<std::size_t>(stats.layers * stats.kv_heads), std::vector<std::int64_t>(pairs));
    for (std::size_t head = 0; head < static_cast<std::size_t>(stats.layers * stats.kv_heads); ++head) {
        const double* score = scores.data() + head * pairs;
        auto& order = orders[head];
        std::iota(order.begin(), order.end(), 0);
        std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return score[a] > score[b]; });
    }
    append_ranks(orders, ranks);
    return ranks;
}

}  // namespace mha2mla
