#pragma once
#include "latent_layer.hpp"

namespace mha2mla {

/// Multiplies the queries of every NoPE pair by a complex number, one per query head, for which the contribution of the
/// pair to the logits is closest to that of the rotated pair: least squares over queries and keys of a sample, weighted
/// by the attention of the original (its AttentionRule) and centred for each query, because softmax ignores a constant
/// shift.
///
/// Uses 128 queries of each sequence. Memory: six matrices [128, seq_len] per thread.
/// @param sample normed layer inputs of whole sequences of seq_len, [tokens, hidden].
/// @param latent the layer whose q and q_bias are changed.
void fit_nope_phases(const Model& model, std::int64_t layer, const Matrix& sample, std::int64_t seq_len,
                     LatentLayer& latent);

}  // namespace mha2mla
