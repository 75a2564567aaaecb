#pragma once
/// Biases as weights, along the direction in which hidden states are constant.

#include "../rope/query_key_moments.hpp"

namespace mha2mla {

/// Wx + b ≈ (W + b·uᵀ)x for queries, keys and values, which then have no bias. u makes uᵀx closest to 1 on the text:
/// u = M⁻¹m for the second moment M and the mean m of the inputs, M with a ridge of Whitening::kRidge.
/// @return E (uᵀx − 1)², the share of a bias that is left. @throws Error{numeric} for moments that are not finite.
double fold_biases(OriginalAttention& layer, const AttentionInputStats& stats);

}  // namespace mha2mla
