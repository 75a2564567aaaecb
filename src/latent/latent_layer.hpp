#pragma once
#include <array>
#include <vector>

#include "../forward/rotary.hpp"
#include "mha2mla/latent.hpp"
#include "mha2mla/model.hpp"

namespace mha2mla {

/// The weights of one layer in MLA form, and what is needed to run it.
struct LatentLayer {
    LatentWeights weights;
    LayerPairs pairs;                                  // that keep RoPE, by KV head
    Vector q_bias, k_rope_bias, up_k_bias, up_v_bias;  // empty where the family has none; o's is left to others
    std::int64_t heads = 0, kv_heads = 0, head_dim = 0, rope_dim = 0;
    AttentionRule rule;  // of the original layer
};

/// Whole sequences of equal length, and the rotation of the layer that reads them.
struct Sequences {
    const RotaryTable& rotary;
    std::int64_t seq_len;
};

/// What the forward pass leaves for the backward pass, on whole sequences.
struct LatentActivations {
    Matrix q, k_rope;  // after RoPE: [tokens, heads * head_dim], [tokens, kv_heads * rope_dim]
    Matrix latent, k_nope,
        v;  // [tokens, rank], [tokens, kv_heads * (head_dim - rope_dim)], [tokens, kv_heads * head_dim]
    std::vector<float> attention;  // softmax, [sequences, heads, seq_len, seq_len]
    Matrix mixed;                  // softmax · v, [tokens, heads * head_dim]
    Matrix output;                 // mixed · oᵀ without bias, [tokens, hidden]
};

/// MLA in its expanded form (MHA2MLA, eq. 8-10).
/// @param input normed hidden states of whole sequences, [sequences * seq_len, hidden], contiguous.
void run_latent(const LatentLayer& layer, const Sequences& sequences, const Matrix& input, LatentActivations& to);

/// Derivatives of a loss by a layer's weights, and by its biases if they are asked for.
struct LatentGradient {
    LatentWeights weights;
    bool biases = false;
    Vector q_bias, k_rope_bias, up_k_bias, up_v_bias;  // empty where the layer has none
};

/// Sets `to`, and d_input unless it is null, from the derivative by the output. Results do not depend on the threads.
/// @param input what run_latent() read. @param d_output, d_input [tokens, hidden]
void differentiate_latent(const LatentLayer& layer, const Sequences& sequences, const Matrix& input,
                          const LatentActivations& at, const Matrix& d_output, LatentGradient& to,
                          Matrix* d_input = nullptr);

/// Pointers to corresponding matrices, so that loops over all weights need not name them.
inline std::array<const Matrix*, 6> matrices(const LatentWeights& w) {
    return {&w.q, &w.k_rope, &w.down, &w.up_k, &w.up_v, &w.o};
}
inline std::array<Matrix*, 6> matrices(LatentWeights& w) { return {&w.q, &w.k_rope, &w.down, &w.up_k, &w.up_v, &w.o}; }
}  // namespace mha2mla
