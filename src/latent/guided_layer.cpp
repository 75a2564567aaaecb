#include "guided_layer.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "../forward/layer.hpp"
#include "first_guess.hpp"
#include "head_weights.hpp"
#include "mha2mla/error.hpp"
#include "nope_phases.hpp"

namespace mha2mla {
namespace {

constexpr std::array<double, 5> kFactors = {0.25, 0.5, 1.0, 2.0, 4.0};

/// How far a layer's attention in MLA form is from the original's on a sample, one sequence at a time.
class OutputError {
public:
    OutputError(const Model& model, std::int64_t layer, LatentLayer latent, const LayerInputs& inputs)
        : latent_(std::move(latent)),
          seq_len_(inputs.extent().sample_seq_len),
          rotary_(model.config, seq_len_),
          input_(inputs.sample(layer)),
          wanted_(input_.rows(), input_.cols()) {
        LayerWorkspace work;
        for (std::int64_t first = 0; first < input_.rows(); first += seq_len_) {
            work.normed = input_.middleRows(first, seq_len_);
            attend(model, layer, rotary_, seq_len_, work, {});
            wanted_.middleRows(first, seq_len_) = work.down;
        }
        const TensorView* bias = model.layer(layer).original_attention().o.bias;
        if (bias == nullptr) return;
        Eigen::RowVectorXf shift(wanted_.cols());
        to_float(*bias, 0, {shift.data(), static_cast<std::size_t>(shift.size())});
        wanted_.rowwise() -= shift;
    }

    [[nodiscard]] double of(const KvFactors& factors) {
        latent_.weights.down = factors.down_k;
        latent_.weights.up_k = factors.up_k;
        latent_.weights.up_v = factors.up_v;
        double sum = 0;
        for (std::int64_t first = 0; first < input_.rows(); first += seq_len_) {
            run_latent(latent_, {rotary_, seq_len_}, input_.middleRows(first, seq_len_), activations_);
            sum += (activations_.output - wanted_.middleRows(first, seq_len_)).cast<double>().squaredNorm();
        }
        return sum;
    }

private:
    LatentLayer latent_;
    std::int64_t seq_len_;
    RotaryTable rotary_;
    Matrix input_, wanted_;
    LatentActivations activations_;
};

/// With the balance that `options` ask for. For automatic balance several factorisations are run on the sample, and
/// that is taken whose attention is closest to the original's, in the squared error of its output.
KvFactors factorize_balanced(const Model& model, std::int64_t layer, LatentLayer latent, const Matrix& kv,
                             const LatentWidths& widths, const ConvertOptions& options, double& balance) {
    const std::int64_t nope_rows = kv.rows() - model.config.num_key_value_heads * model.config.head_dim;
    const Whitening whitening(options.inputs->moment(layer));
    HeadWeights heads;
    ErrorWeighting weighting{&whitening, 1, nullptr};
    if (options.factorization == Factorization::weighted) {
        heads = head_weights(latent, whitening, options.inputs->sample(layer));
        weighting.heads = &heads;
    }
    const double equal = equal_energy_weight(weigh_errors(kv, nope_rows, weighting), nope_rows);
    const auto with = [&](double factor) {
        weighting.key_weight = factor * equal;
        return factorize(options.factorization, kv, nope_rows, widths, options.svd, weighting);
    };
    const double unweighted = 1 / equal;
    if (options.balance.how != KvBalance::How::automatic) {
        balance = options.balance.how == KvBalance::How::none ? unweighted : options.balance.factor;
        return with(balance);
    }
    OutputError error(model, layer, std::move(latent), *options.inputs);
    std::vector<double> factors(kFactors.begin(), kFactors.end());
    factors.push_back(unweighted);
    KvFactors best;
    double least = std::numeric_limits<double>::infinity();
    for (const double factor : factors) {
        KvFactors candidate = with(factor);
        const double left = error.of(candidate);
        if (left >= least) continue;
        least = left;
        best = std::move(candidate);
        balance = factor;
    }
    if (!std::isfinite(least)) {
        throw Error(ErrorCode::numeric, layer_prefix(layer) + "self_attn: the attention's output is not finite");
    }
    return best;
}

}  // namespace

GuidedLayer guide_layer(const Model& model, std::int64_t layer, const LayerPairs& pairs, const Matrix& kv,
                        const LatentWidths& widths, const ConvertOptions& options) {
    const ModelConfig& config = model.config;
    if (options.inputs == nullptr || options.inputs->extent().hidden != config.hidden_size ||
        options.inputs->extent().layers != config.num_hidden_layers) {
        throw Error(ErrorCode::usage, "this conversion needs moments and samples of this model's layer inputs");
    }
    const std::int64_t nope_rows = kv.rows() - config.num_key_value_heads * config.head_dim;
    LatentLayer latent = unfactorized_layer(model, layer, pairs);
    if (options.nope_phase == NopePhase::fitted) {
        fit_nope_phases(model, layer, options.inputs->sample(layer), options.inputs->extent().sample_seq_len, latent);
    }
    GuidedLayer result{latent.weights.q, latent.q_bias, {}, 0};
    if (row_of(options.factorization).needs_moments()) {
        result.factors = factorize_balanced(model, layer, std::move(latent), kv, widths, options, result.balance);
    } else {
        result.factors = factorize(options.factorization, kv, nope_rows, widths, options.svd);
    }
    return result;
}

std::uint64_t guiding_bytes(const ModelConfig& config, const ConvertOptions& options) {
    const auto bytes = [](std::int64_t numbers) { return static_cast<std::uint64_t>(numbers) * sizeof(float); };
    const std::int64_t hidden = config.hidden_size;
    const std::int64_t query = config.num_attention_heads * config.head_dim;
    const std::int64_t key = config.num_key_value_heads * config.head_dim;
    const std::int64_t rank = config.num_key_value_heads * options.kv_rank;
    // Moment, its root in both precisions; the weighted matrix and factors twice.
    std::uint64_t sum = bytes(4 * hidden * hidden + 2 * key * hidden + 3 * rank * (hidden + 2 * key));
    const std::int64_t tokens = kSampleTokens, sequence = kSampleSeqLen;
    sum += bytes(2 * query * hidden + 2 * tokens * hidden);  // W_q, W_o; input and output
    sum +=
        bytes(sequence * (4 * query + 4 * key + rank + 3 * hidden) + config.num_attention_heads * sequence * sequence);
    return sum;
}

}  // namespace mha2mla
