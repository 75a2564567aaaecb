#pragma once
#include <array>
#include <cstdint>

#include "../linalg/gemm.hpp"
#include "mha2mla/architecture.hpp"

namespace mha2mla {

/// One additive part of the logits q·k. Head h of a token is at data + token*stride + h*step.
struct LogitPart {
    MatrixIn q;  // of num_heads heads
    MatrixIn k;  // of num_kv_heads heads, or of one for all of them if k_step is 0
    std::int64_t dim = 0;
    std::int64_t q_step = 0, k_step = 0;
};

/// Inputs of causal attention over a batch of sequences of equal length.
struct AttentionInput {
    std::int64_t sequences = 0, seq_len = 0;
    std::int64_t num_heads = 0, num_kv_heads = 0, head_dim = 0;
    AttentionRule rule;              // its scale, soft-cap and window
    std::array<LogitPart, 2> parts;  // rotated and not rotated; a part may have dim 0
    MatrixIn v;                      // of num_kv_heads heads: head h of a token is at data + token*stride + h*v_step
    std::int64_t v_step = 0;

    [[nodiscard]] std::int64_t key_dim() const { return parts[0].dim + parts[1].dim; }
};

/// softmax(cap(scale · Σ_parts q·kᵀ)) v with a causal mask, over the rule's window. The query heads of a KV head are
/// processed together: a block of queries with one block of keys after the other and a running softmax (FlashAttention,
/// Dao et al. 2022, algorithm 1), so that logits stay in the processor's cache.
/// @param out [tokens, num_heads * head_dim], contiguous.
void causal_attention(const AttentionInput& input, float* out);

/// Floats that each thread of causal_attention allocates.
[[nodiscard]] std::int64_t attention_scratch(std::int64_t group_size, std::int64_t key_dim, std::int64_t head_dim);

}  // namespace mha2mla
