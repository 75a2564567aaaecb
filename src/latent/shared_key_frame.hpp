#pragma once
/// The parts of a layer with one rotated key for all heads that follow from its map alone, whatever the latent is.

#include <vector>

#include "../rope/shared_key.hpp"
#include "mha2mla/latent.hpp"

namespace mha2mla {

struct SharedKeyFrame {
    /// All but down, up_k and up_v: queries (what rotates of every head, then what does not), the rotated key, the
    /// output. The key bias vanishes on unrotated components, because it adds the same to all scores of a query, and
    /// stays on the rotated key; each head gets the value bias of its KV head.
    LatentWeights weights;
    std::vector<MatrixD> query_maps;  // of unrotated components, by head, [nope_rows, head_dim]
};
[[nodiscard]] SharedKeyFrame shared_key_frame(const OriginalAttention& layer, const SharedKeyMap& map);

/// Sets the up projections of every head. @param keys unrotated components from the latent, [nope_rows, rank].
/// @param values of every KV head from it, [kv_heads * head_dim, rank].
void place_up(const OriginalAttention& layer, const SharedKeyFrame& frame, const MatrixD& keys, const MatrixD& values,
              LatentWeights& to);

}  // namespace mha2mla
