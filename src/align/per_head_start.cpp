#include "../latent/build_layer.hpp"
#include "../latent/factor_layer.hpp"
#include "../model/head_order.hpp"
#include "layer_start.hpp"

namespace mha2mla {
namespace {

class PerHeadStart final : public LayerStart {
public:
    PerHeadStart(const StartInputs& inputs, const PairRanks& ranks)
        : inputs_(inputs), ranks_(ranks), whitening_(second_moment(inputs.target.input)) {}

    [[nodiscard]] StartedLayer with(const Split& split, std::span<const double> balances) override {
        const auto& [model, at, target, measure, without_bias] = inputs_;
        const LatentShape shape = model.config.latent_shape(split.rope_dim, split.kv_rank, Factorization::whitened);
        const LayerPairs pairs = kept_pairs(ranks_, at, split.rope_dim);
        const AttentionView& view = model.layer(at).original_attention();
        const Matrix kv = gather_kv(*view.k.weight, layer_rows(model, at, pairs).key_nope, *view.v.weight);
        StartedLayer started{layer_of_original(model, at, pairs, measure.seq_len), 0};
        const OutputTarget output{target, measure};
        const FactoredLayer factored =
            factor_layer(started.layer, layer_prefix(at) + "self_attn", kv,
                         {shape.factorization, shape.widths(), {}, {{balances.begin(), balances.end()}, false}},
                         {&whitening_, 1, nullptr}, &output);
        set_factors(factored.factors, started.layer);
        started.error = factored.error;
        return started;
    }

private:
    StartInputs inputs_;
    const PairRanks& ranks_;
    Whitening whitening_;
};

}  // namespace

std::unique_ptr<LayerStart> per_head_start(const StartInputs& inputs, const PairRanks& ranks) {
    return std::make_unique<PerHeadStart>(inputs, ranks);
}

}  // namespace mha2mla
