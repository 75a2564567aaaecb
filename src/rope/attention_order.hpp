#pragma once
#include <vector>

#include "../forward/rotary.hpp"
#include "mha2mla/matrix.hpp"

namespace mha2mla {

/// Rotary pairs of every KV head of a layer, the one that needs its rotation most first.
///
/// Backward elimination: starting with all pairs rotated, the pair goes next whose removal, on top of those that went
/// before, changes Σ_heads ‖(A' − A) V W_oᵀ‖² least, with A and A' the attention before and after. The sum is over
/// evenly spaced queries: kOrderRows of them over all sequences and heads of a group, so that the relative standard
/// error of a difference is about 1/√kOrderRows. Equal effects: the smaller pair goes first.
/// Effects are sums of squares, so that a candidate is given up once its part of the sum exceeds the least so far.
///
/// Cost of a head: at most pairs²/2 times a softmax over, and a product of, [kOrderRows, seq_len] by head_dim, half of
/// it under the causal mask. Memory: queries, keys and values of the layer, W_o in float32, and for each thread the
/// sampled logits of a group, kOrderRows · seq_len floats, with the keys and values of its sequences.
/// @param input normed hidden states of whole sequences, [sequences * seq_len, hidden].
[[nodiscard]] LayerPairs attention_order(const Model& model, std::int64_t layer, std::int64_t seq_len,
                                         const Matrix& input);

inline constexpr std::int64_t kOrderRows = 512;

}  // namespace mha2mla
