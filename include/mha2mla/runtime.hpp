#pragma once
/// The Transformer's forward pass on the CPU in float32, for original and converted checkpoints.
///
/// Weights stay in the mapped file and are converted tile by tile. So the memory consists of the hidden states of the
/// given tokens and a workspace of about 2048 tokens or one sequence, for any number of layers. The weights of the next
/// layer are read ahead, and those of finished layers are released.

#include <cstdint>
#include <functional>
#include <span>

#include "mha2mla/matrix.hpp"
#include "mha2mla/model.hpp"
#include "mha2mla/observer.hpp"
#include "mha2mla/token_id.hpp"

namespace mha2mla {

/// The inputs of a layer's attention, for a block of whole sequences.
struct TappedAttention {
    const Matrix& input;  // normed hidden states, [tokens, hidden]
    const Matrix& q;      // before RoPE, [tokens, num_heads * head_dim]
    const Matrix& k;      // before RoPE, [tokens, num_kv_heads * head_dim]
};
/// Called for each layer and block, blocks in the order of the tokens. Original checkpoints only.
using AttentionTap = std::function<void(std::int64_t layer, const TappedAttention& tapped)>;

/// Causal prefill of `ids.size() / seq_len` sequences of equal length, layer by layer.
///
/// @param ids token ids, sequence after sequence.
/// @return hidden states before the final norm, [ids.size(), hidden].
/// @throws Error{usage} if ids do not fill whole sequences or a tap is given for a converted checkpoint,
///         Error{format} for an id outside the vocabulary, Error{interrupted}.
[[nodiscard]] Matrix prefill(const Model& model, std::span<const TokenId> ids, std::int64_t seq_len, Observer& observer,
                             const AttentionTap& tap = {});

/// Applies the final norm and lm_head. @param hidden [tokens, hidden]. @return [tokens, vocab]
[[nodiscard]] Matrix logits(const Model& model, Eigen::Ref<const Matrix> hidden);

}  // namespace mha2mla
