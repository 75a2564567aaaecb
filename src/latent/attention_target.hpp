#pragma once
#include "latent_layer.hpp"

namespace mha2mla {

/// What a layer's attention in MLA form should compute.
struct AttentionTarget {
    Matrix input;   // normed hidden states of whole sequences, [tokens, hidden]
    Matrix output;  // what the attention should give for them, without the output projection's bias, [tokens, hidden]
    Vector weight;  // of a token's squared error
};

/// What the attention of the original model gives for its own normed input; every token counts as 1.
/// @param model the original. @param input of whole sequences, [tokens, hidden].
[[nodiscard]] AttentionTarget original_attention(const Model& model, std::int64_t layer, const RotaryTable& rotary,
                                                 std::int64_t seq_len, Matrix input);

/// What the attention of a layer reads: the normed hidden states, or these where the family has no norm there.
void read_input(const Model& model, std::int64_t layer, Eigen::Ref<const Matrix> hidden, Matrix& input);

/// What would bring hidden states `before` a layer to `behind`, behind its attention, errors weighted by
/// token_weights(behind). Not for layers with a norm behind the attention.
/// @param before, behind [tokens, hidden]; they may be of different models.
[[nodiscard]] AttentionTarget target_between(const Model& model, std::int64_t layer, const Matrix& before,
                                             const Matrix& behind);

/// The bias of an original layer's output projection; empty where there is none.
[[nodiscard]] Vector output_bias(const Model& model, std::int64_t layer);

/// One over the mean square of each hidden state: the next norm divides by it.
[[nodiscard]] Vector token_weights(const Matrix& hidden);

/// Σ weight·‖output − target‖² / tokens / hidden. @param d_output set to its derivative by the output unless null.
double squared_loss(const Matrix& output, const Matrix& target, const Vector& weight, Matrix* d_output);

/// How an error of an attention's output is measured.
struct OutputMeasure {
    std::int64_t seq_len;
    std::int64_t block_tokens;  // run at once: whole sequences
    std::int64_t tokens;        // of the target, from its start: whole sequences
};
/// squared_loss() of what the layer computes, over the first `measure.tokens` tokens.
[[nodiscard]] double output_error(const LatentLayer& layer, const AttentionTarget& target,
                                  const OutputMeasure& measure);

}  // namespace mha2mla
