#include "guided_layer.hpp"

#include "build_layer.hpp"
#include "head_weights.hpp"
#include "mha2mla/error.hpp"
#include "nope_phases.hpp"

namespace mha2mla {
namespace {

/// Where several balances are tried, that is taken whose attention is closest to the original's on the sample.
FactoredLayer factor_by_moments(const Model& model, std::int64_t layer, LatentLayer latent, const Matrix& kv,
                                const GuideRequest& request, const LatentWidths& widths, const LayerInputs& inputs) {
    const Whitening whitening(inputs.moment(layer));
    const std::int64_t seq_len = inputs.extent().sample_seq_len;
    HeadWeights heads;
    ErrorWeighting weighting{&whitening, 1, nullptr};
    if (request.factorization == Factorization::weighted) {
        heads = head_weights(latent, whitening, inputs.sample(layer));
        weighting.heads = &heads;
    }
    const FactorRequest factor{request.factorization, widths, request.svd, balance_search(request.balance)};
    const std::string name = layer_prefix(layer) + "self_attn";
    if (request.balance.how != KvBalance::How::automatic) {
        return factor_layer(std::move(latent), name, kv, factor, weighting, nullptr);
    }
    const RotaryTable rotary(model.rules(layer).rotary, seq_len);
    const AttentionTarget target = original_attention(model, layer, rotary, seq_len, inputs.sample(layer));
    const OutputTarget output{target, {seq_len, seq_len, target.input.rows()}};
    return factor_layer(std::move(latent), name, kv, factor, weighting, &output);
}

}  // namespace

GuidedLayer guide_layer(const Model& model, std::int64_t layer, const LayerPairs& pairs, const Matrix& kv,
                        const GuideRequest& request, const LayerInputs* inputs) {
    const ModelConfig& config = model.config;
    if (inputs == nullptr || inputs->extent().hidden != config.hidden_size ||
        inputs->extent().layers != config.num_hidden_layers) {
        throw Error(ErrorCode::usage, "this conversion needs moments and samples of this model's layer inputs");
    }
    LatentLayer latent = layer_of_original(model, layer, pairs, inputs->extent().sample_seq_len);
    if (request.nope_phase == NopePhase::fitted) {
        if (latent.head_norms) {
            throw Error(ErrorCode::unsupported, "nope-phase fitted turns queries before their norm, which changes it");
        }
        fit_nope_phases(model, layer, inputs->sample(layer), inputs->extent().sample_seq_len, latent);
    }
    const LatentShape shape = config.latent_shape(latent.shape.rope_dim, request.kv_rank, request.factorization);
    GuidedLayer result{latent.weights.q, latent.weights.q_bias, {}, 0};
    if (row_of(request.factorization).needs_moments()) {
        FactoredLayer factored =
            factor_by_moments(model, layer, std::move(latent), kv, request, shape.widths(), *inputs);
        result.factors = std::move(factored.factors);
        result.balance = factored.balance;
    } else {
        result.factors = factorize(request.factorization, kv, shape.nope_rows(), shape.widths(), request.svd);
    }
    return result;
}

std::uint64_t guiding_bytes(const ModelConfig& config, std::int64_t kv_rank) {
    const auto bytes = [](std::int64_t numbers) { return static_cast<std::uint64_t>(numbers) * sizeof(float); };
    const std::int64_t hidden = config.hidden_size;
    const std::int64_t query = config.num_attention_heads * config.head_dim;
    const std::int64_t key = config.num_key_value_heads * config.head_dim;
    const std::int64_t rank = config.num_key_value_heads * kv_rank;
    // Moment, its root in both precisions; the weighted matrix and factors twice.
    std::uint64_t sum = bytes(4 * hidden * hidden + 2 * key * hidden + 3 * rank * (hidden + 2 * key));
    const std::int64_t tokens = kSampleTokens, sequence = kSampleSeqLen;
    sum += bytes(2 * query * hidden + 2 * tokens * hidden);  // W_q, W_o; input and output
    sum +=
        bytes(sequence * (4 * query + 4 * key + rank + 3 * hidden) + config.num_attention_heads * sequence * sequence);
    return sum;
}

}  // namespace mha2mla
