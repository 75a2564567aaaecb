#pragma once
#include "mha2mla/runtime.hpp"
#include "rotary.hpp"

namespace mha2mla {

/// Buffers that a layer reuses from block to block.
struct LayerWorkspace {
    Matrix normed, q, k, v, latent, attention, gate, up, down;
};

/// One Transformer block, in place on whole sequences.
/// @param hidden [sequences * seq_len, hidden], contiguous.
void forward_layer(const Model& model, std::int64_t layer, const RotaryTable& rotary, std::int64_t seq_len,
                   Eigen::Ref<Matrix> hidden, LayerWorkspace& work, const AttentionTap& tap);

/// x · rsqrt(mean(x²) + eps) · weight, row by row. @param x [tokens, hidden], out the same.
void rms_norm(const TensorView& weight, double eps, Eigen::Ref<const Matrix> x, Matrix& out);

}  // namespace mha2mla
