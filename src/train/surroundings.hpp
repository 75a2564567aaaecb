#pragma once
/// What stands around the attention of a block: norms, which a family may not have, the MLP, and both residual sums.

#include "../forward/mixture.hpp"
#include "../forward/mlp.hpp"
#include "../forward/norm.hpp"

namespace mha2mla {

/// What a block leaves for the backward pass, but for its attention. What its rules leave out is empty.
struct BlockStates {
    Matrix input;             // hidden states of whole sequences, [tokens, hidden]; given
    Matrix normed;            // what the attention reads
    Matrix attention_output;  // with its bias, before the norm behind it
    Matrix middle;            // hidden states behind the attention
    Matrix mlp_normed;        // what the MLP reads
    MlpActivations mlp;       // unless there are experts
    Matrix mlp_output;        // before the norm behind it
    Matrix output;            // hidden states behind the block
};

/// Where derivatives by the weights around the attention are added; null members: not computed.
struct SurroundingGradient {
    NormGradient attention_norm, attention_post_norm, mlp_norm, mlp_post_norm;
    MlpGradient mlp;
    MixtureGradient mixture;  // where there are experts
};

/// From at.input to at.normed.
void run_before_attention(const LayerView& view, BlockStates& at);
/// From at.attention_output to at.output.
void run_behind_attention(const LayerView& view, const LayerRules& rules, BlockStates& at);

/// The derivative by at.attention_output.
/// @param d_hidden that by at.output, which becomes that by at.input as far as it does not go through the attention.
/// @param d_normed set to the part of that by at.normed which does not go through the attention.
[[nodiscard]] Matrix back_to_attention(const LayerView& view, const LayerRules& rules, const BlockStates& at,
                                       Matrix& d_hidden, Matrix& d_normed, const SurroundingGradient& to = {});
/// Adds to d_hidden what comes through at.normed.
void back_to_input(const LayerView& view, const BlockStates& at, const Matrix& d_normed, Matrix& d_hidden,
                   const SurroundingGradient& to = {});

}  // namespace mha2mla
