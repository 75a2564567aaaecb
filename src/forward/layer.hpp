#pragma once
#include "mha2mla/runtime.hpp"
#include "mlp.hpp"
#include "rotary.hpp"

namespace mha2mla {

/// Buffers that a layer reuses from block to block.
struct LayerWorkspace {
    Matrix normed, q, k, k_rope, v, latent, attention, down;
    MlpWorkspace mlp;
};
/// Bytes of the workspace for blocks of `tokens` tokens through an original checkpoint, and of what `threads` threads
/// allocate beside it.
[[nodiscard]] std::uint64_t workspace_bytes(const ModelConfig& config, std::int64_t tokens, int threads);

/// One Transformer block, in place on whole sequences.
/// @param hidden [sequences * seq_len, hidden], contiguous.
void forward_layer(const Model& model, std::int64_t layer, const RotaryTable& rotary, std::int64_t seq_len,
                   Eigen::Ref<Matrix> hidden, LayerWorkspace& work, const AttentionTap& tap);
/// work.down = attention(work.normed), with its output projection.
void attend(const Model& model, std::int64_t layer, const RotaryTable& rotary, std::int64_t seq_len,
            LayerWorkspace& work, const AttentionTap& tap);
/// The two halves of forward_layer(), in this order: where the rules say `parallel`, the MLP reads what the attention
/// did.
void forward_attention(const Model& model, std::int64_t layer, const RotaryTable& rotary, std::int64_t seq_len,
                       Eigen::Ref<Matrix> hidden, LayerWorkspace& work, const AttentionTap& tap);
void forward_mlp(const Model& model, std::int64_t layer, Eigen::Ref<Matrix> hidden, LayerWorkspace& work);
/// work.normed = norm(hidden), or the hidden states themselves where there is no norm.
void read_normed(const NormView& view, Eigen::Ref<const Matrix> hidden, LayerWorkspace& work);
/// hidden += scale · norm(work.down).
void add_down(const NormView& post, float scale, LayerWorkspace& work, Eigen::Ref<Matrix> hidden);
/// Queries and keys before RoPE, with their norms. @param input normed hidden states, [tokens, hidden]
void project_queries_and_keys(const AttentionView& view, const Matrix& input, Matrix& q, Matrix& k);
/// As far as the tap: queries and keys before RoPE, and nothing else. Original checkpoints only.
void forward_to_tap(const Model& model, std::int64_t layer, Eigen::Ref<const Matrix> hidden, LayerWorkspace& work,
                    const AttentionTap& tap);

}  // namespace mha2mla
