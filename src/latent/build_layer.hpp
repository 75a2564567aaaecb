#pragma once
#include "../rope/query_key_moments.hpp"
#include "latent_layer.hpp"
#include "mha2mla/factorize.hpp"

namespace mha2mla {

/// A whole tensor as float32. @throws Error{numeric} naming it if it is not finite.
[[nodiscard]] Matrix all_rows(const TensorView& tensor);

/// Sets the norms of queries and keys, whose places follow from the layer's shape and pairs.
void read_head_norms(const LayerView& view, LatentLayer& to);
/// A layer without weights: its sizes, rules, rotation and norms of heads.
/// @param positions of the longest sequence that it will run on.
[[nodiscard]] LatentLayer empty_layer(const Model& model, std::int64_t layer, const LatentShape& shape,
                                      const LayerPairs& pairs, std::int64_t positions);
/// The same with one rotated key for all heads. @param frequencies of its pairs, radians per token.
[[nodiscard]] LatentLayer empty_shared_key_layer(const Model& model, std::int64_t layer, const LatentShape& shape,
                                                 const std::vector<double>& frequencies, std::int64_t positions);

/// A layer of an original model in MLA form with a rotated key for each KV head, all but down, up_k and up_v.
/// @param pairs that keep RoPE, by KV head, ascending. @param positions of the longest sequence that it will run on.
[[nodiscard]] LatentLayer layer_of_original(const Model& model, std::int64_t layer, const LayerPairs& pairs,
                                            std::int64_t positions);

/// The attention of a layer of an original model, all weights as float32.
[[nodiscard]] OriginalAttention read_original_attention(const Model& model, std::int64_t layer);

/// A layer of a converted model with a rotated key for each KV head. What does not share one latent is written as if it
/// did: latents of their own lie behind one another with zeros in the other's up projection, and what stayed whole has
/// the identity for a down projection.
[[nodiscard]] LatentLayer layer_of_converted(const Model& model, std::int64_t layer, std::int64_t positions);

/// Sets down, up_k and up_v. @param factors of a shared latent.
void set_factors(const KvFactors& factors, LatentLayer& layer);

}  // namespace mha2mla
