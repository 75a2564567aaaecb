#pragma once
#include <span>

#include "../forward/rotary.hpp"
#include "mha2mla/token_id.hpp"
#include "surroundings.hpp"

namespace mha2mla {

/// Whole sequences of equal length, and the rotation of the layer that reads them.
struct Sequences {
    const RotaryTable& rotary;
    std::int64_t seq_len;
    std::span<const std::int64_t> begins = {};  // see KeptShape::begins
};

/// A block of an original checkpoint, with everything that its rules say.
struct OriginalBlock {
    const Model& model;
    std::int64_t layer;
    Sequences sequences;
};

/// What a block leaves for the backward pass. What its rules leave out is empty.
struct OriginalActivations : BlockStates {
    Matrix q_projected, k_projected;   // before their norms
    Matrix q, k, v;                    // after RoPE
    std::vector<float> probabilities;  // [sequences, heads, seq_len, seq_len]
    Matrix mixed;                      // [tokens, heads * head_dim]
};
void run_block(const OriginalBlock& block, OriginalActivations& at);

/// Where derivatives by a block's weights are added; null members: not computed.
struct OriginalGradient {
    SurroundingGradient around;
    NormGradient q_norm, k_norm;
    LinearGradient q, k, v, o;
};
/// Results do not depend on the threads.
/// @param d_hidden the derivative by at.output, turned into that by at.input.
void differentiate_block(const OriginalBlock& block, const OriginalActivations& at, Matrix& d_hidden,
                         const OriginalGradient& to);

/// Adds to `to` the derivative by the embeddings, from that by the hidden states before the first layer.
/// @param scale of the embeddings. @param to [vocab, hidden]
void embedding_gradient(float scale, std::span<const TokenId> ids, const Matrix& d_hidden, float* to);

}  // namespace mha2mla
