#pragma once
#include "../forward/mlp.hpp"
#include "../latent/latent_layer.hpp"

namespace mha2mla {

/// What a whole block, attention in MLA form and the original's MLP, leaves for the backward pass.
struct BlockActivations {
    Matrix input;   // hidden states of whole sequences, [tokens, hidden]; given
    Matrix normed;  // what the attention reads
    LatentActivations attention;
    Matrix middle;      // hidden states behind the attention
    Matrix mlp_normed;  // what the MLP reads
    MlpActivations mlp;
    Matrix output;  // hidden states behind the block
};
void run_block(const Model& model, std::int64_t layer, const LatentLayer& latent, const RotaryTable& rotary,
               std::int64_t seq_len, BlockActivations& at);

/// Derivatives by the attention's weights. Results do not depend on the threads.
/// @param d_hidden derivative by at.output, turned into that by at.input.
void differentiate_block(const Model& model, std::int64_t layer, const LatentLayer& latent, const RotaryTable& rotary,
                         std::int64_t seq_len, const BlockActivations& at, Matrix& d_hidden, LatentWeights& to);

/// Σ KL(softmax(head(wanted)) || softmax(head(output))) / tokens, where head is the model's last norm and lm_head.
/// @param output, wanted hidden states behind the last layer, [tokens, hidden]
/// @param d_output set to the derivative.
/// Holds the logits of kHeadTokens tokens at once.
double distribution_loss(const Model& model, const Matrix& output, const Matrix& wanted, Matrix& d_output);

inline constexpr std::int64_t kHeadTokens = 256;

}  // namespace mha2mla
