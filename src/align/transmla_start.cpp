// TransMLA (Meng et al. 2025): RoRoPE, FreqFold and balanced PCA of keys and values, as its code has them.
#include <cmath>
#include <limits>

#include "../latent/build_layer.hpp"
#include "../latent/shared_key_frame.hpp"
#include "layer_start.hpp"
#include "mha2mla/factorize.hpp"

namespace mha2mla {
namespace {

/// E (Ax + a)², the square root of it, averaged over rows.
double mean_rms(const MatrixD& rows, const Eigen::VectorXd& bias, const AttentionInputStats& stats) {
    if (rows.rows() == 0) return 0;
    const Eigen::VectorXd squares = (rows * stats.moment).cwiseProduct(rows).rowwise().sum();
    const Eigen::VectorXd mixed = 2 * (rows * stats.mean).cwiseProduct(bias) + bias.cwiseProduct(bias);
    return (squares + mixed).cwiseMax(0).cwiseSqrt().mean();
}

Eigen::VectorXd bias_or_zero(const Vector& bias, std::int64_t rows) {
    return bias.size() > 0 ? Eigen::VectorXd(bias.cast<double>()) : Eigen::VectorXd(Eigen::VectorXd::Zero(rows));
}

/// The second moment of inputs and the constant 1 behind them, which biases multiply.
MatrixD moment_with_constant(const AttentionInputStats& stats) {
    const std::int64_t hidden = stats.moment.rows();
    MatrixD moment(hidden + 1, hidden + 1);
    moment << stats.moment, stats.mean, stats.mean.transpose(), 1.0;
    return moment;
}

/// In a block of `fold` pairs the first fold/collapse components rotate, at every collapse-th pair's frequency, so that
/// all of them have the frequencies of a key of head_dim/collapse.
std::vector<SharedKeySlot> leading_slots(const std::vector<SharedKeyBlock>& blocks, std::int64_t collapse,
                                         const std::vector<double>& frequencies) {
    std::vector<SharedKeySlot> slots;
    for (std::size_t block = 0; block < blocks.size(); ++block) {
        for (std::int64_t index = 0; index < blocks[block].pairs / collapse; ++index) {
            slots.push_back({{static_cast<std::int64_t>(block), index}, frequencies[slots.size()]});
        }
    }
    return slots;
}

AttentionInputStats stats_of(const Matrix& input) {
    AttentionInputStats stats;
    stats.moment = second_moment(input);
    stats.mean = mean_of_rows(input);
    stats.attention = MatrixD::Ones(1, 1);  // no query is turned by it
    return stats;
}

class TransmlaStart final : public LayerStart {
public:
    TransmlaStart(const StartInputs& inputs, const SlotFrequencies& frequencies)
        : inputs_(inputs),
          frequencies_(frequencies),
          original_(read_original_attention(inputs.model, inputs.layer)),
          stats_(stats_of(inputs.target.input)),
          moments_(query_key_moments(original_, stats_)),
          whitening_(moment_with_constant(stats_)) {}

    [[nodiscard]] StartedLayer with(const Split& split, std::span<const double> /*balances*/) override {
        const auto& [model, at, target, measure, without_bias] = inputs_;
        const LatentShape shape =
            model.config.latent_shape(split.rope_dim, split.kv_rank, Factorization::whitened, deepseek_layout());
        const auto blocks = principal_blocks(original_, moments_, split.fold);
        const auto slots =
            leading_slots(blocks, original_.head_dim / split.rope_dim, frequencies_.engine.at(split.rope_dim));
        const SharedKeyMap map(original_, blocks, slots, stats_.attention, QueryTurn::none);
        const SharedKeyFrame frame = shared_key_frame(original_, map);
        StartedLayer started{empty_shared_key_layer(model, at, shape, map.frequencies(), measure.seq_len), 0};
        started.layer.weights = frame.weights;
        set_principal_latent(map, frame, split, started.layer.weights);
        started.error = output_error(started.layer, target, measure);
        return started;
    }

private:
    /// Principal components of keys over `ratio` and values, uncentred, biases included. `ratio` is what makes their
    /// channels' root mean squares equal; of values the first rope_dim channels do not count in it, as published. The
    /// latent itself has no bias: that of keys changes no softmax, and that of values is added behind it, exactly.
    void set_principal_latent(const SharedKeyMap& map, const SharedKeyFrame& frame, const Split& split,
                              LatentWeights& to) const {
        const std::int64_t nope = map.nope_rows(), values = original_.v.rows(), hidden = original_.v.cols();
        MatrixD rows(nope + values, hidden);
        Eigen::VectorXd bias(nope + values);
        rows << map.map_keys(original_.k.cast<double>()).bottomRows(nope), original_.v.cast<double>();
        bias << map.map_keys(bias_or_zero(original_.k_bias, original_.k.rows())).col(0).tail(nope),
            bias_or_zero(original_.v_bias, values);
        const std::int64_t counted = std::max<std::int64_t>(1, values - split.rope_dim);
        const double key_rms = mean_rms(rows.topRows(nope), bias.head(nope), stats_);
        const double value_rms = mean_rms(rows.bottomRows(counted), bias.tail(counted), stats_);
        const double ratio = key_rms > 0 && value_rms > 0 ? key_rms / value_rms : 1;
        rows.topRows(nope) /= ratio;
        bias.head(nope) /= ratio;
        Matrix joint(rows.rows(), hidden + 1);
        joint << rows.cast<float>(), bias.cast<float>();
        SvdOptions options;
        options.sigma = SigmaPlacement::up;
        const LowRank factors = truncated_svd(whitening_.apply(joint), split.kv_rank, options);
        to.down = whitening_.revert(factors.down).leftCols(hidden);
        const MatrixD up = factors.up.cast<double>();
        place_up(original_, frame, up.topRows(nope) * ratio, up.bottomRows(values), to);
    }

    StartInputs inputs_;
    const SlotFrequencies& frequencies_;
    OriginalAttention original_;
    AttentionInputStats stats_;
    QueryKeyMoments moments_;
    Whitening whitening_;
};

/// The first TransMLA paper (Meng et al. 2025, arXiv 2502.07864v1, section 3): KV heads repeated to all query heads are
/// a factorisation of rank kv_heads * head_dim in which nothing is lost.
class ReplicatedStart final : public LayerStart {
public:
    ReplicatedStart(const StartInputs& inputs, bool identity)
        : inputs_(inputs), identity_(identity), original_(read_original_attention(inputs.model, inputs.layer)) {}

    [[nodiscard]] StartedLayer with(const Split& split, std::span<const double> /*balances*/) override {
        const auto& [model, at, target, measure, without_bias] = inputs_;
        const LatentShape shape =
            model.config.latent_shape(split.rope_dim, split.kv_rank, Factorization::whitened, deepseek_layout());
        const auto blocks = plain_blocks(original_);
        std::vector<SharedKeySlot> slots;
        for (const SharedKeyComponent& component : components_of(blocks)) {
            slots.push_back({component, original_.pairs[static_cast<std::size_t>(component.block)].frequency});
        }
        const SharedKeyMap map(original_, blocks, slots, MatrixD::Ones(1, 1), QueryTurn::none);
        const SharedKeyFrame frame = shared_key_frame(original_, map);
        StartedLayer started{empty_shared_key_layer(model, at, shape, map.frequencies(), measure.seq_len), 0};
        LatentWeights& weights = started.layer.weights = frame.weights;
        const std::int64_t dim = original_.head_dim;
        weights.down = original_.v;
        place_up(original_, frame, MatrixD::Zero(0, original_.v.rows()),
                 MatrixD::Identity(original_.v.rows(), original_.v.rows()), weights);
        if (!identity_) {
            Matrix repeated(original_.heads * dim, original_.v.cols());
            for (std::int64_t head = 0; head < original_.heads; ++head) {
                repeated.middleRows(head * dim, dim) = original_.v.middleRows(head / original_.group_size() * dim, dim);
            }
            const LowRank factors = truncated_svd(repeated, split.kv_rank, {});
            weights.down = factors.down;
            weights.up_v = factors.up;
            weights.up_k.setZero(weights.up_k.rows(), split.kv_rank);
        }
        started.error = output_error(started.layer, target, measure);
        return started;
    }

private:
    StartInputs inputs_;
    bool identity_;
    OriginalAttention original_;
};

}  // namespace

std::unique_ptr<LayerStart> transmla_start(const StartInputs& inputs, const SlotFrequencies& frequencies) {
    return std::make_unique<TransmlaStart>(inputs, frequencies);
}

std::unique_ptr<LayerStart> replicated_start(const StartInputs& inputs, bool identity) {
    return std::make_unique<ReplicatedStart>(inputs, identity);
}

}  // namespace mha2mla
