#pragma once
#include "latent_layer.hpp"
#include "mha2mla/factorize.hpp"

namespace mha2mla {

/// A layer of an original model in MLA form, all but down, up_k and up_v.
/// @param pairs that keep RoPE, by KV head, ascending.
[[nodiscard]] LatentLayer layer_of_original(const Model& model, std::int64_t layer, const LayerPairs& pairs);

/// A layer of a converted model. What does not share one latent is written as if it did: latents of their own lie
/// behind one another with zeros in the other's up projection, and what stayed whole has the identity for a down
/// projection.
[[nodiscard]] LatentLayer layer_of_converted(const Model& model, std::int64_t layer);

/// Sets down, up_k and up_v. @param factors of a shared latent.
void set_factors(const KvFactors& factors, LatentLayer& layer);

}  // namespace mha2mla
