#pragma once
/// What a layer is before it is refined, for each way to spend the budget.

#include <map>
#include <memory>
#include <span>
#include <vector>

#include "../latent/attention_target.hpp"
#include "mha2mla/align.hpp"

namespace mha2mla {

/// A layer, and what its first weights are measured by.
struct StartInputs {
    const Model& model;
    std::int64_t layer;
    const AttentionTarget& target;
    OutputMeasure measure;
    bool without_bias = false;  // fold_biases() before anything else
};

struct StartedLayer {
    LatentLayer layer;
    double error = 0;  // output_error()
};

/// What a layer's first weights start from, whatever the split; one per layout.
class LayerStart {
public:
    LayerStart() = default;
    virtual ~LayerStart() = default;
    LayerStart(const LayerStart&) = delete;
    LayerStart& operator=(const LayerStart&) = delete;
    LayerStart(LayerStart&&) = delete;
    LayerStart& operator=(LayerStart&&) = delete;

    /// The factorisation whose balance of keys and values leaves the least error. @throws Error{numeric}
    /// @param balances that are tried.
    [[nodiscard]] virtual StartedLayer with(const Split& split, std::span<const double> balances) = 0;
};

/// A rotated key for each KV head: the pairs are the first of their rank.
[[nodiscard]] std::unique_ptr<LayerStart> per_head_start(const StartInputs& inputs, const PairRanks& ranks);

/// How the components of a rotated key that all heads share get their frequencies, radians per token.
struct SlotFrequencies {
    RopeFrequencies kind = RopeFrequencies::engine;
    std::map<std::int64_t, std::vector<double>> engine = {};  // engine_frequencies() by rope_dim
    std::vector<double> shared = {};                          // of all layers; empty before they are chosen
};
/// One rotated key for all heads. Before shared frequencies are chosen, layers have their own.
/// @param sample_tokens of the target's input, on which distances of attention are measured.
/// @param frequencies must outlive it.
[[nodiscard]] std::unique_ptr<LayerStart> shared_key_start(const StartInputs& inputs, std::int64_t sample_tokens,
                                                           const SlotFrequencies& frequencies);
/// What the rotation of each component is worth to a layer at each of its original frequencies: rotation_values().
[[nodiscard]] MatrixD shared_key_values(const StartInputs& inputs, std::int64_t sample_tokens, std::int64_t fold);

/// SharedKeyBasis::transmla. @param frequencies must outlive it.
[[nodiscard]] std::unique_ptr<LayerStart> transmla_start(const StartInputs& inputs, const SlotFrequencies& frequencies);
/// SharedKeyBasis::replicated, and with the values themselves as the latent replicated_identity.
[[nodiscard]] std::unique_ptr<LayerStart> replicated_start(const StartInputs& inputs, bool identity);

}  // namespace mha2mla
