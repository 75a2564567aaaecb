#pragma once
#include "latent_layer.hpp"

namespace mha2mla {

/// Turns and scales the queries of every NoPE pair by the complex number, one for each query head, with which the
/// pair's logit contributions come closest to those that its rotation gave: least squares over queries and keys of a
/// sample, weighted by the original's attention and centred for each query, because softmax does not see a shift.
///
/// 128 queries of each sequence. Memory: six matrices [128, seq_len] a thread.
/// @param sample normed layer inputs of whole sequences of seq_len, [tokens, hidden].
/// @param latent whose q and q_bias change.
void fit_nope_phases(const Model& model, std::int64_t layer, const Matrix& sample, std::int64_t seq_len,
                     LatentLayer& latent);

}  // namespace mha2mla
