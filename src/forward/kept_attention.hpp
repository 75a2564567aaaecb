#pragma once
#include <span>

#include "../linalg/gemm.hpp"
#include "mha2mla/architecture.hpp"

namespace mha2mla {

/// Whole sequences whose heads' numbers lie in two parts: `first_dim` of them, and the rest up to `head_dim`. A part
/// of a head h is at part + token * stride + h * width of the part; the inner product of a query and a key is that of
/// both parts together.
struct KeptShape {
    std::int64_t sequences = 0, seq_len = 0;
    std::int64_t heads = 0, kv_heads = 0, head_dim = 0, first_dim = 0;

    [[nodiscard]] std::size_t probabilities() const {
        return static_cast<std::size_t>(sequences * heads * seq_len * seq_len);
    }
};
struct KeptInput {
    MatrixIn q_first, q_rest;  // [tokens, heads * first_dim], [tokens, heads * (head_dim - first_dim)]
    MatrixIn k_first, k_rest;  // the same of kv_heads
    MatrixIn v;                // [tokens, kv_heads * head_dim]
};

/// Causal attention that keeps its probabilities for kept_attention_gradient(); causal_attention() is for all else.
/// @param probabilities set, [sequences, heads, seq_len, seq_len]
/// @param out softmax · v, [tokens, heads * head_dim], contiguous.
void kept_attention(const AttentionRule& rule, const KeptShape& shape, const KeptInput& input,
                    std::span<float> probabilities, float* out);

/// Where derivatives go; the same places as in KeptInput.
struct KeptOutput {
    MatrixOut q_first, q_rest, k_first, k_rest, v;
};
/// Sets the derivatives by queries, keys and values, from that by `out`. Results do not depend on the threads.
/// @param probabilities as kept_attention() left them. @param d_out [tokens, heads * head_dim], contiguous.
void kept_attention_gradient(const AttentionRule& rule, const KeptShape& shape, const KeptInput& input,
                             std::span<const float> probabilities, const float* d_out, const KeptOutput& to);

}  // namespace mha2mla
