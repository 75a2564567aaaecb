#pragma once
#include "disarmed.hpp"
#include "latent_layer.hpp"

namespace mha2mla {

/// One tensor of a converted layer as its layout has it.
struct TensorContent {
    Matrix weight;  // [rows, columns], or [rows, 1] of a vector
    Vector bias;    // empty where the tensor has none
};

/// A layer whose tensors are to be written.
struct LayerContent {
    const LatentWeights& weights;
    const LatentShape& shape;
    float scale;         // of the original's logits
    Vector output_bias;  // the original's; empty where there is none
    bool biased;         // tensors of LatentTensor::biased have one even if it is zero
    /// shape.kv_rank may count numbers that the weights do not have: behind them comes the constant, then zeros.
    LatentNorm latent_norm = LatentNorm::identity;
};

/// What a tensor of the layout holds: rows where LatentRows says, rotated ones in the layout's order, queries times
/// what makes up for the loader's divisor, and around a norm of a latent what turns it into the identity: see
/// Disarmed. The value bias goes to the output where the layout has no place for it.
[[nodiscard]] TensorContent content_of(const LatentTensor& tensor, const LayerContent& layer);

/// Width of the queries' latent by which they get a bias in a layout whose `query` tensor has none; 0 without a bias.
[[nodiscard]] std::int64_t query_rank_for_bias(const AttentionShape& shape, bool biased);

}  // namespace mha2mla
