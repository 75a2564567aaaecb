#pragma once
#include <array>
#include <memory>
#include <span>
#include <vector>

#include "../forward/head_norms.hpp"
#include "../forward/rotary.hpp"
#include "mha2mla/latent.hpp"
#include "mha2mla/model.hpp"

namespace mha2mla {

/// The weights of one layer in MLA form, and what is needed to run it.
struct LatentLayer {
    LatentWeights weights;
    LatentShape shape;
    LayerPairs pairs;                           // that keep RoPE, by KV head; empty: all pairs of `rotary`
    std::shared_ptr<const RotaryTable> rotary;  // of the rotated keys, in halves; for as many positions as are run
    AttentionRule rule;                         // of the original layer
    std::optional<HeadNorms> head_norms = {};   // of queries and keys
    double norm_eps = 0;                        // of an RMSNorm on the latent, whose weight is 1; 0: there is none
};

/// What the forward pass leaves for the backward pass, on whole sequences.
struct LatentActivations {
    Matrix raw_q, raw_k_rope, raw_k_nope;  // before norms of queries and keys; empty without them
    Matrix q_scales, k_scales;             // of these norms
    Matrix q;                              // after RoPE, [tokens, heads * (rope_dim + nope_dim)]
    Matrix k_rope;                         // after RoPE, a copy for each head of k_nope, [tokens, up_heads * rope_dim]
    Matrix latent;                         // behind its norm, [tokens, rank]
    Matrix raw_latent;                     // before it; empty without one
    Matrix k_nope, v;                      // [tokens, up_heads * nope_dim], [tokens, up_heads * head_dim]
    std::vector<float> attention;          // softmax, [sequences, heads, seq_len, seq_len]
    Matrix mixed;                          // softmax · v, [tokens, heads * head_dim]
    Matrix output;                         // mixed · oᵀ without bias, [tokens, hidden]
};

/// MLA in its expanded form (MHA2MLA, eq. 8-10).
/// @param input normed hidden states of whole sequences, [sequences * seq_len, hidden], contiguous.
/// @param begins see KeptShape::begins
void run_latent(const LatentLayer& layer, std::int64_t seq_len, const Matrix& input, LatentActivations& to,
                std::span<const std::int64_t> begins = {});

/// Derivatives of a loss by a layer's weights, and by its biases and the norms of its heads if they are asked for.
struct LatentGradient {
    LatentWeights weights;
    bool biases = false, norms = false;
    std::optional<HeadNorms> head_norms = {};  // HeadNorm::weight_gradient(); nothing where the layer has none
};

/// Sets `to`, and d_input unless it is null, from the derivative by the output. Results do not depend on the threads.
/// @param input what run_latent() read. @param d_output, d_input [tokens, hidden]
void differentiate_latent(const LatentLayer& layer, std::int64_t seq_len, const Matrix& input,
                          const LatentActivations& at, const Matrix& d_output, LatentGradient& to,
                          Matrix* d_input = nullptr);

/// Pointers to corresponding matrices, so that loops over all weights need not name them.
inline std::array<const Matrix*, 6> matrices(const LatentWeights& w) {
    return {&w.q, &w.k_rope, &w.down, &w.up_k, &w.up_v, &w.o};
}
inline std::array<Matrix*, 6> matrices(LatentWeights& w) { return {&w.q, &w.k_rope, &w.down, &w.up_k, &w.up_v, &w.o}; }
inline std::array<const Vector*, 4> biases(const LatentWeights& w) {
    return {&w.q_bias, &w.k_rope_bias, &w.up_k_bias, &w.up_v_bias};
}
inline std::array<Vector*, 4> biases(LatentWeights& w) {
    return {&w.q_bias, &w.k_rope_bias, &w.up_k_bias, &w.up_v_bias};
}

}  // namespace mha2mla
