#pragma once
#include "latent_layer.hpp"
#include "mha2mla/factorize.hpp"

namespace mha2mla {

/// E xᵀx over rows x, in double. [columns, columns]
[[nodiscard]] MatrixD second_moment(const Matrix& rows);

/// A layer of the original model in MLA form, all but down, up_k and up_v.
/// @param pairs that keep RoPE, by KV head, ascending.
[[nodiscard]] LatentLayer unfactorized_layer(const Model& model, std::int64_t layer, const LayerPairs& pairs);

/// A layer of the original model in MLA form before any refinement: whitened joint factorisation.
/// @param pairs that keep RoPE, by KV head, ascending.
/// @param whitening by the layer's normed input.
/// @param balance 1: errors count as if NoPE keys and values had the same mean square on the text; 2: keys twice that.
[[nodiscard]] LatentLayer first_guess(const Model& model, std::int64_t layer, const LayerPairs& pairs,
                                      std::int64_t kv_rank, const Whitening& whitening, double balance);

}  // namespace mha2mla
