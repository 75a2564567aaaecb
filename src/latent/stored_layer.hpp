#pragma once
#include <utility>

#include "layer_tensors.hpp"

namespace mha2mla {

/// The latent's numbers that keys or values are made of.
struct LatentPart {
    std::int64_t first = 0, count = 0;
    bool made = true;  // by `down`; otherwise they are the hidden state itself, and `down` is an identity there
};

/// A layer of a converted checkpoint as it is trained, and what its layout made of it.
struct StoredLayer {
    LatentLayer layer;
    LatentNorm latent_norm = LatentNorm::identity;  // where the layout has a norm on the latent
    LatentPart keys, values;  // the same, or the values' behind the keys': zero in the other's up projection

    /// Rows of `down` that are weights, first and number.
    [[nodiscard]] std::pair<std::int64_t, std::int64_t> made_rows() const;
    /// Sets to zero what the gradients of up projections have of the other part.
    void keep_parts(LatentWeights& gradient) const;
    /// What a tensor in this role has of the weights that content_of() gives it.
    [[nodiscard]] Matrix part_of(LatentRole role, const Matrix& weights) const;
};

/// The inverse of content_of(): weights without what the layout puts around a norm that is to be an identity; the
/// weight of a norm that is meant goes into the up projections. Queries stay scaled for the loader's divisor, which is
/// that of the layer's rule.
/// @param positions that the layer is run on.
/// Latents of their own lie behind one another. @throws Error{unsupported} naming the layer if its queries go through a
/// latent of their own.
[[nodiscard]] StoredLayer read_stored_layer(const Model& converted, std::int64_t layer, std::int64_t positions);

}  // namespace mha2mla
