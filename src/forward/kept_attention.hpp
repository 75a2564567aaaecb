#pragma once
#include <span>

#include "../linalg/gemm.hpp"
#include "mha2mla/architecture.hpp"

namespace mha2mla {

/// Whole sequences whose queries and keys lie in two parts of first_dim and rest_dim numbers a head. A part of a head h
/// is at part + token * stride + h * width of the part; the inner product of a query and a key is that of both parts
/// together.
struct KeptShape {
    std::int64_t sequences = 0, seq_len = 0;
    std::int64_t heads = 0, kv_heads = 0;
    std::int64_t first_dim = 0, rest_dim = 0, value_dim = 0;
    /// Of each token the first of its sequence that it attends to, counted from the sequence's; empty: 0.
    std::span<const std::int64_t> begins = {};

    [[nodiscard]] std::int64_t key_dim() const { return first_dim + rest_dim; }
    [[nodiscard]] std::size_t probabilities() const {
        return static_cast<std::size_t>(sequences * heads * seq_len * seq_len);
    }
};
struct KeptInput {
    MatrixIn q_first, q_rest;  // [tokens, heads * first_dim], [tokens, heads * rest_dim]
    MatrixIn k_first, k_rest;  // the same of kv_heads
    MatrixIn v;                // [tokens, kv_heads * value_dim]
};

/// Causal attention that keeps its probabilities for kept_attention_gradient(); causal_attention() is for all else.
/// @param probabilities set, [sequences, heads, seq_len, seq_len]
/// @param out softmax · v, [tokens, heads * value_dim], contiguous.
void kept_attention(const AttentionRule& rule, const KeptShape& shape, const KeptInput& input,
                    std::span<float> probabilities, float* out);

/// Where derivatives go; the same places as in KeptInput.
struct KeptOutput {
    MatrixOut q_first, q_rest, k_first, k_rest, v;
};
/// Sets the derivatives by queries, keys and values, from that by `out`. Results do not depend on the threads.
/// @param probabilities as kept_attention() left them. @param d_out [tokens, heads * value_dim], contiguous.
void kept_attention_gradient(const AttentionRule& rule, const KeptShape& shape, const KeptInput& input,
                             std::span<const float> probabilities, const float* d_out, const KeptOutput& to);

}  // namespace mha2mla
