#include <cmath>
#include <limits>
#include <optional>

#include "../latent/build_layer.hpp"
#include "../latent/fold_bias.hpp"
#include "../latent/refit_output.hpp"
#include "../latent/shared_key_layer.hpp"
#include "../rope/attention_distances.hpp"
#include "../rope/shared_key_slots.hpp"
#include "layer_start.hpp"
#include "mha2mla/error.hpp"

namespace mha2mla {
namespace {

AttentionInputStats stats_of(const StartInputs& inputs, std::int64_t sample_tokens) {
    const auto& [model, at, target, measure, without_bias] = inputs;
    AttentionInputStats stats;
    stats.moment = second_moment(target.input);
    stats.mean = mean_of_rows(target.input);
    const RotaryTable rotary(model.rules(at).rotary, measure.seq_len);
    stats.attention = attention_distances(model, at, rotary, measure.seq_len, target.input.topRows(sample_tokens));
    return stats;
}

OriginalAttention original_of(const StartInputs& inputs, const AttentionInputStats& stats) {
    OriginalAttention original = read_original_attention(inputs.model, inputs.layer);
    if (inputs.without_bias) (void)fold_biases(original, stats);
    return original;
}

/// What does not depend on the split.
struct LayerBasis {
    LayerBasis(const StartInputs& inputs, std::int64_t sample_tokens)
        : stats(stats_of(inputs, sample_tokens)),
          original(original_of(inputs, stats)),
          moments(query_key_moments(original, stats)) {}

    AttentionInputStats stats;
    OriginalAttention original;
    QueryKeyMoments moments;

    [[nodiscard]] MatrixD values(const std::vector<SharedKeyBlock>& blocks, QueryTurn turn,
                                 const std::vector<double>& frequencies) const {
        return rotation_values(original, blocks, moments, stats.attention, turn, frequencies);
    }
};

class SharedKeyStart final : public LayerStart {
public:
    SharedKeyStart(const StartInputs& inputs, std::int64_t sample_tokens, const SlotFrequencies& frequencies)
        : inputs_(inputs),
          frequencies_(frequencies),
          basis_(inputs, sample_tokens),
          whitening_(centred_moment(basis_.stats)) {}

    /// The first split that is asked for also decides how queries are turned: their factors become smaller the less a
    /// layer attends at one distance, which is right for its logits; but then it looks at everything far away, and
    /// more so the longer the text. Which error is larger depends on the model (docs/study.md).
    [[nodiscard]] StartedLayer with(const Split& split, std::span<const double> balances) override {
        const auto middle = balances.subspan(balances.size() / 2, 1);
        if (!turn_) {
            const double phase = with(split, middle, QueryTurn::phase).error;
            const double mean = with(split, middle, QueryTurn::mean).error;
            turn_ = phase < mean ? QueryTurn::phase : QueryTurn::mean;
        }
        StartedLayer best = with(split, balances, *turn_);
        if (!std::isfinite(best.error)) {
            throw Error(ErrorCode::numeric,
                        layer_prefix(inputs_.layer) + "self_attn: the attention's output is not finite");
        }
        return best;
    }

private:
    [[nodiscard]] StartedLayer with(const Split& split, std::span<const double> balances, QueryTurn turn) {
        const auto& [model, at, target, measure, without_bias] = inputs_;
        const LatentShape shape =
            model.config.latent_shape(split.rope_dim, split.kv_rank, Factorization::whitened, deepseek_layout());
        auto& blocks = blocks_[split.fold];
        if (blocks.empty()) blocks = balanced_blocks(basis_.original, basis_.moments, split.fold);
        const SharedKeyMap map(basis_.original, blocks, slots(blocks, split.rope_dim, turn), basis_.stats.attention,
                               turn);
        const LatentLayer empty = empty_shared_key_layer(model, at, shape, map.frequencies(), measure.seq_len);
        const SharedKeyFactorizer factorizer(basis_.original, map, basis_.moments, whitening_, KeyWeighting::moment);
        StartedLayer best;
        best.error = std::numeric_limits<double>::infinity();
        for (const double balance : balances) {
            StartedLayer candidate{empty, 0};
            candidate.layer.weights = factorizer.factorize(split.kv_rank, balance).weights;
            // W_o of few tokens is what candidates are compared with, not what the layer gets: its error on other text
            // than that would be far larger.
            const Matrix unfitted = candidate.layer.weights.o;
            candidate.error = refit_output(candidate.layer, target, measure);
            candidate.layer.weights.o = unfitted;
            if (candidate.error < best.error) best = std::move(candidate);
        }
        return best;
    }

    [[nodiscard]] std::vector<SharedKeySlot> slots(const std::vector<SharedKeyBlock>& blocks, std::int64_t rope_dim,
                                                   QueryTurn turn) const {
        const auto fixed = [&](const std::vector<double>& list) {
            return fixed_slots(blocks, basis_.values(blocks, turn, list), list);
        };
        if (frequencies_.kind == RopeFrequencies::engine) return fixed(frequencies_.engine.at(rope_dim));
        if (!frequencies_.shared.empty()) return fixed(frequencies_.shared);
        const auto& pairs = basis_.original.pairs;
        const std::vector<double> own = frequencies_of(pairs);
        return free_slots(pairs, blocks, basis_.values(blocks, turn, own), own, rope_dim / 2);
    }

    StartInputs inputs_;
    const SlotFrequencies& frequencies_;
    LayerBasis basis_;
    Whitening whitening_;
    std::map<std::int64_t, std::vector<SharedKeyBlock>> blocks_;  // by fold
    std::optional<QueryTurn> turn_;
};

}  // namespace

std::unique_ptr<LayerStart> shared_key_start(const StartInputs& inputs, std::int64_t sample_tokens,
                                             const SlotFrequencies& frequencies) {
    return std::make_unique<SharedKeyStart>(inputs, sample_tokens, frequencies);
}

MatrixD shared_key_values(const StartInputs& inputs, std::int64_t sample_tokens, std::int64_t fold) {
    const LayerBasis basis(inputs, sample_tokens);
    return basis.values(balanced_blocks(basis.original, basis.moments, fold), QueryTurn::mean,
                        frequencies_of(basis.original.pairs));
}

}  // namespace mha2mla
