#pragma once
#include <functional>

#include "mha2mla/runtime.hpp"
#include "mixture.hpp"
#include "rotary.hpp"

namespace mha2mla {

/// Buffers that a layer reuses from block to block.
struct LayerWorkspace {
    Matrix normed, q, low, k, k_rope, v, latent, attention, down;
    MlpWorkspace mlp;
    MixtureWorkspace mixture;
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
/// What surrounds the attention in a block, for whole sequences and for new tokens after cached ones: the norm of the
/// hidden states, the output projection, the norm of the output, its scale and the residual.
/// @param mix sets work.attention, [tokens, num_heads * head_dim], which has that shape, to softmax·v of work.normed.
void around_attention(const Model& model, std::int64_t layer, Eigen::Ref<Matrix> hidden, LayerWorkspace& work,
                      const std::function<void()>& mix);
/// Queries and keys before RoPE, with their norms. @param input normed hidden states, [tokens, hidden]
void project_queries_and_keys(const AttentionView& view, const Matrix& input, Matrix& q, Matrix& k);
/// The same with values.
void project_original(const AttentionView& view, const Matrix& input, Matrix& q, Matrix& k, Matrix& v);
/// As far as the tap: queries and keys before RoPE, and nothing else. Original checkpoints only.
void forward_to_tap(const Model& model, std::int64_t layer, Eigen::Ref<const Matrix> hidden, LayerWorkspace& work,
                    const AttentionTap& tap);

}  // namespace mha2mla
