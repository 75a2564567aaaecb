#pragma once
#include "layer_tensors.hpp"

namespace mha2mla {

/// A layer of a converted checkpoint as it is trained, and what its layout made of it.
struct StoredLayer {
    LatentLayer layer;
    LatentNorm latent_norm = LatentNorm::identity;  // where the layout has a norm on the latent
};

/// The inverse of content_of(): weights without what the layout puts around a norm that is to be an identity; the
/// weight of a norm that is meant goes into the up projections. Queries stay scaled for the loader's divisor, which is
/// that of the layer's rule.
/// @param positions that the layer is run on.
/// @throws Error{unsupported} naming the layer if its queries go through a latent of their own.
[[nodiscard]] StoredLayer read_stored_layer(const Model& converted, std::int64_t layer, std::int64_t positions);

}  // namespace mha2mla
