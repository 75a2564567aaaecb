#include <cmath>
#include <limits>

#include "../latent/build_layer.hpp"
#include "../latent/refit_output.hpp"
#include "../latent/shared_key_layer.hpp"
#include "../rope/attention_distances.hpp"
#include "../rope/shared_key_slots.hpp"
#include "layer_start.hpp"
#include "mha2mla/error.hpp"

namespace mha2mla {
namespace {

AttentionInputStats stats_of(const StartInputs& inputs, std::int64_t sample_tokens) {
    const auto& [model, at, target, measure] = inputs;
    AttentionInputStats stats;
    stats.moment = second_moment(target.input);
    stats.mean = target.input.cast<double>().colwise().mean().transpose();
    const RotaryTable rotary(model.rules(at).rotary, measure.seq_len);
    stats.attention = attention_distances(model, at, rotary, measure.seq_len, target.input.topRows(sample_tokens));
    return stats;
}

class SharedKeyStart final : public LayerStart {
public:
    SharedKeyStart(const StartInputs& inputs, std::int64_t sample_tokens)
        : inputs_(inputs),
          original_(read_original_attention(inputs.model, inputs.layer)),
          stats_(stats_of(inputs, sample_tokens)),
          moments_(query_key_moments(original_, stats_)),
          whitening_(centred_moment(stats_)) {}

    [[nodiscard]] StartedLayer with(const Split& split, std::span<const double> balances) const override {
        const auto& [model, at, target, measure] = inputs_;
        const LatentShape shape =
            model.config.latent_shape(split.rope_dim, split.kv_rank, Factorization::whitened, deepseek_layout());
        const LatentLayer empty = empty_layer(model, at, shape, {}, measure.seq_len);
        const std::vector<double>& frequencies = empty.rotary->frequencies();
        const auto blocks = balanced_blocks(original_, moments_, split.fold);
        const MatrixD values = rotation_values(original_, blocks, moments_, stats_.attention, kTurn, frequencies);
        const SharedKeyMap map(original_, blocks, fixed_slots(blocks, values, frequencies), stats_.attention, kTurn);
        const SharedKeyFactorizer factorizer(original_, map, moments_, whitening_, KeyWeighting::moment);
        StartedLayer best;
        best.error = std::numeric_limits<double>::infinity();
        for (const double balance : balances) {
            StartedLayer candidate{empty, 0};
            candidate.layer.weights = factorizer.factorize(split.kv_rank, balance).weights;
            refit_output(candidate.layer, target, measure);
            candidate.error = output_error(candidate.layer, target, measure);
            if (candidate.error < best.error) best = std::move(candidate);
        }
        if (!std::isfinite(best.error)) {
            throw Error(ErrorCode::numeric, layer_prefix(at) + "self_attn: the attention's output is not finite");
        }
        return best;
    }

private:
    static constexpr QueryTurn kTurn = QueryTurn::mean;

    StartInputs inputs_;
    OriginalAttention original_;
    AttentionInputStats stats_;
    QueryKeyMoments moments_;
    Whitening whitening_;
};

}  // namespace

std::unique_ptr<LayerStart> shared_key_start(const StartInputs& inputs, std::int64_t sample_tokens) {
    return std::make_unique<SharedKeyStart>(inputs, sample_tokens);
}

}  // namespace mha2mla
