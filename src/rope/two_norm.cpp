#include <algorithm>
#include <numeric>

#include "strategies.hpp"

namespace mha2mla {

/// S_2-norm: the r pairs of a KV head with the largest Σ mean‖q^[k]‖·mean‖k^[k]‖ (MHA2MLA, section 3.1).
PairRanks two_norm_ranks(const CalibrationStats& stats) {
    PairRanks ranks{stats.layers, stats.kv_heads, 2 * stats.pairs, {}};
    ranks.values.resize(static_cast<std::size_t>(stats.layers * stats.kv_heads * 2 * stats.pairs));
    const auto scores = stats.scores();
    const auto pairs = static_cast<std::size_t>(stats.pairs);
    std::vector<std::size_t> order(pairs);
    for (std::size_t head = 0; head < static_cast<std::size_t>(stats.layers * stats.kv_heads); ++head) {
        const double* score = scores.data() + head * pairs;
        std::iota(order.begin(), order.end(), 0);
        std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return score[a] > score[b]; });
        for (std::size_t rank = 0; rank < pairs; ++rank) {
            const auto value = static_cast<std::uint8_t>(rank);
            ranks.values[head * 2 * pairs + order[rank]] = value;
            ranks.values[head * 2 * pairs + pairs + order[rank]] = value;
        }
    }
    return ranks;
}

}  // namespace mha2mla
