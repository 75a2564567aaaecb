#pragma once
/// A layer's attention before the conversion, and what queries and keys are like on a text.

#include <cstdint>
#include <vector>

#include "mha2mla/architecture.hpp"
#include "mha2mla/matrix.hpp"

namespace mha2mla {

/// Two dimensions of a head that RoPE turns together.
struct HeadPair {
    std::int64_t first = 0, second = 0;
    double frequency = 0;  // radians per token; 0: the pair never turns
};
/// All pairs of a head. Dimensions that do not rotate come last, in pairs of frequency 0.
/// @throws Error{unsupported} if their number is odd.
[[nodiscard]] std::vector<HeadPair> head_pairs(const RotaryRule& rule, std::int64_t head_dim);

/// Attention of a layer of the original.
struct OriginalAttention {
    std::int64_t heads = 0, kv_heads = 0, head_dim = 0;
    std::vector<HeadPair> pairs;            // of every head, [head_dim/2]
    Matrix q;                               // [heads * head_dim, hidden]
    Matrix k, v;                            // [kv_heads * head_dim, hidden]
    Matrix o;                               // [hidden, heads * head_dim]
    Vector q_bias, k_bias, v_bias, o_bias;  // empty where there is none

    /// Moves the gain of cos and sin into the queries: its square, in the dimensions that rotate.
    void take_gain(const RotaryRule& rule);
    [[nodiscard]] std::int64_t group_size() const { return heads / kv_heads; }
};

/// What is known of the text that goes into a layer's attention.
struct AttentionInputStats {
    MatrixD moment;        // E xᵀx over normed hidden states x, [hidden, hidden]
    Eigen::VectorXd mean;  // E x, [hidden]
    /// How much attention goes to keys at a distance of 0, 1, … tokens, the first token of a sequence left out: by
    /// query head, or one row for all. Scale does not matter. [heads or 1, distances]
    MatrixD attention;
};

/// Second moments of queries and keys before RoPE, biases included.
struct QueryKeyMoments {
    std::vector<MatrixD> query;  // E qqᵀ by query head, [head_dim, head_dim]
    MatrixD key;                 // E kkᵀ over all KV heads, [kv_heads * head_dim, kv_heads * head_dim]
};
/// @throws Error{numeric} if a moment is not finite.
[[nodiscard]] QueryKeyMoments query_key_moments(const OriginalAttention& layer, const AttentionInputStats& stats);

}  // namespace mha2mla
