#pragma once
#include "latent_layer.hpp"
#include "mha2mla/factorize.hpp"

namespace mha2mla {

/// The error weights of each KV head: for keys E qqᵀ over the NoPE queries of its group, which follows from the second
/// moment of the layer's input; for values W_oᵀW_o of its group.
/// @param latent the layer without its factors. @param sample of the layer's input, for the mean if queries have a
/// bias.
/// @throws Error{numeric}
[[nodiscard]] HeadWeights head_weights(const LatentLayer& latent, const Whitening& whitening, const Matrix& sample);

}  // namespace mha2mla
