#include "../forward/rotary.hpp"
#include "attention_order.hpp"
#include "mha2mla/error.hpp"
#include "mha2mla/rope.hpp"

namespace mha2mla {

PairRanks attention_ranks(const CalibrationStats& stats) {
    if (stats.attention_ranks.empty()) {
        throw Error(ErrorCode::usage, "the statistics do not rank pairs by attention", Remedy::calibrate_with_order);
    }
    PairRanks ranks{stats.layers, stats.kv_heads, 2 * stats.pairs, {}};
    for (std::int64_t head = 0; head < stats.layers * stats.kv_heads; ++head) {
        const auto first = stats.attention_ranks.begin() + head * stats.pairs;
        for (int half = 0; half < 2; ++half) ranks.values.insert(ranks.values.end(), first, first + stats.pairs);
    }
    return ranks;
}

void add_attention_ranks(const Model& model, CalibrationStats& stats, Observer& observer) {
    if (stats.inputs == nullptr || stats.inputs->extent().hidden != model.config.hidden_size) {
        throw Error(ErrorCode::usage, "ranking pairs by attention needs samples of this model's layer inputs");
    }
    const std::int64_t seq_len = stats.inputs->extent().sample_seq_len;
    const RotaryTable rotary(model.config, seq_len);
    stats.attention_ranks.clear();
    for (std::int64_t layer = 0; layer < stats.layers; ++layer) {
        observer.step("rank pairs", layer, stats.layers);
        const auto orders = attention_order(model, layer, rotary, seq_len, stats.inputs->sample(layer));
        PairRanks ranks{1, stats.kv_heads, 2 * stats.pairs, {}};
        append_ranks(orders, ranks);
        for (std::int64_t head = 0; head < stats.kv_heads; ++head) {
            const auto first = ranks.values.begin() + head * ranks.head_dim;
            stats.attention_ranks.insert(stats.attention_ranks.end(), first, first + stats.pairs);
        }
    }
    observer.step("rank pairs", stats.layers, stats.layers);
}

}  // namespace mha2mla
