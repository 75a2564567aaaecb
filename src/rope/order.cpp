#include "../forward/rotary.hpp"
#include "mha2mla/error.hpp"
#include "mha2mla/rope.hpp"

namespace mha2mla {

PairRanks ranks_for(const RopeStrategy& strategy, const CalibrationStats& stats) {
    if (strategy.ranks_of_norms != nullptr) return strategy.ranks_of_norms(stats);
    if (!strategy.goes_by_order()) {
        throw Error(ErrorCode::usage, "the selection " + std::string(strategy.name) + " goes by no statistics");
    }
    const auto order = stats.orders.find(strategy.order.statistic);
    if (order == stats.orders.end()) {
        throw Error(ErrorCode::usage, "the statistics do not rank pairs by " + std::string(strategy.order.statistic),
                    Remedy::calibrate_with_order);
    }
    PairRanks ranks{stats.layers, stats.kv_heads, 2 * stats.pairs, {}};
    for (std::int64_t head = 0; head < stats.layers * stats.kv_heads; ++head) {
        const auto first = order->second.begin() + head * stats.pairs;
        for (int half = 0; half < 2; ++half) ranks.values.insert(ranks.values.end(), first, first + stats.pairs);
    }
    return ranks;
}

void add_order(const PairOrder& order, const Model& model, CalibrationStats& stats, Observer& observer) {
    if (stats.inputs == nullptr || stats.inputs->extent().hidden != model.config.hidden_size) {
        throw Error(ErrorCode::usage,
                    "ranking pairs by " + std::string(order.statistic) + " needs samples of this model's layer inputs");
    }
    const std::int64_t seq_len = stats.inputs->extent().sample_seq_len;
    std::vector<std::uint8_t> all;
    for (std::int64_t layer = 0; layer < stats.layers; ++layer) {
        observer.step("rank pairs", layer, stats.layers);
        PairRanks ranks{1, stats.kv_heads, 2 * stats.pairs, {}};
        append_ranks(order.of_layer(model, layer, seq_len, stats.inputs->sample(layer)), ranks);
        for (std::int64_t head = 0; head < stats.kv_heads; ++head) {
            const auto first = ranks.values.begin() + head * ranks.head_dim;
            all.insert(all.end(), first, first + stats.pairs);
        }
    }
    stats.orders[std::string(order.statistic)] = std::move(all);
    observer.step("rank pairs", stats.layers, stats.layers);
}

}  // namespace mha2mla
