#pragma once
#include "latent_layer.hpp"
#include "mha2mla/factorize.hpp"

namespace mha2mla {

/// How much errors of each KV head's keys and values count in which direction: keys by E qqᵀ over the NoPE queries of
/// its group, which follows from the layer input's second moment, values by W_oᵀW_o of its group.
/// @param latent everything but the factors. @param sample of the layer's input, for the mean where queries have a
/// bias.
/// @throws Error{numeric}
[[nodiscard]] HeadWeights head_weights(const LatentLayer& latent, const Whitening& whitening, const Matrix& sample);

}  // namespace mha2mla
