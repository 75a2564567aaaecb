#pragma once
#include "../forward/mlp.hpp"
#include "../latent/latent_layer.hpp"

namespace mha2mla {

/// A block whose attention is in MLA form, on its way to being trained; all else is the original's.
struct LatentBlock {
    const Model& model;
    std::int64_t layer;
    const LatentLayer& latent;
    std::int64_t seq_len;
};

/// What a block leaves for the backward pass.
struct BlockActivations {
    Matrix input;   // hidden states of whole sequences, [tokens, hidden]; given
    Matrix normed;  // what the attention reads
    LatentActivations attention;
    Matrix attention_output;  // with its bias, before a norm behind it
    Matrix middle;            // hidden states behind the attention
    Matrix mlp_normed;        // what the MLP reads
    MlpActivations mlp;
    Matrix mlp_output;  // before a norm behind it
    Matrix output;      // hidden states behind the block
};
void run_block(const LatentBlock& block, BlockActivations& at);

/// Derivatives by the attention's weights. Results do not depend on the threads.
/// @param d_hidden derivative by at.output, turned into that by at.input.
void differentiate_block(const LatentBlock& block, const BlockActivations& at, Matrix& d_hidden, LatentGradient& to);

}  // namespace mha2mla
