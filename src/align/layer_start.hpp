#pragma once
/// What a layer is before it is refined, for each way to spend the budget.

#include <memory>
#include <span>

#include "../latent/attention_target.hpp"
#include "mha2mla/align.hpp"

namespace mha2mla {

/// A layer, and what its first weights are measured by.
struct StartInputs {
    const Model& model;
    std::int64_t layer;
    const AttentionTarget& target;
    OutputMeasure measure;
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
    [[nodiscard]] virtual StartedLayer with(const Split& split, std::span<const double> balances) const = 0;
};

/// A rotated key for each KV head: the pairs are the first of their rank.
[[nodiscard]] std::unique_ptr<LayerStart> per_head_start(const StartInputs& inputs, const PairRanks& ranks);
/// One rotated key for all heads, at the frequencies that engines compute.
/// @param sample_tokens of the target's input, on which distances of attention are measured.
[[nodiscard]] std::unique_ptr<LayerStart> shared_key_start(const StartInputs& inputs, std::int64_t sample_tokens);

}  // namespace mha2mla
