#pragma once
#include <vector>

#include "mha2mla/convert.hpp"

namespace mha2mla {

/// A layer that is made with the help of text.
struct GuidedLayer {
    Matrix q;       // rows as in a converted checkpoint, with the phases of NoPE pairs
    Vector q_bias;  // empty where the family has none
    KvFactors factors;
    double balance = 0;  // KvBalance::factor that was used; 0 where there is none
};

/// The phases and the factorisation that `options` ask for.
/// @param pairs that keep RoPE, by KV head. @param kv, widths as for factorize().
/// @throws Error{usage} without inputs of this model, Error{numeric}.
[[nodiscard]] GuidedLayer guide_layer(const Model& model, std::int64_t layer, const LayerPairs& pairs, const Matrix& kv,
                                      const LatentWidths& widths, const ConvertOptions& options);

/// What it takes beside the matrix and what factorize() takes.
[[nodiscard]] std::uint64_t guiding_bytes(const ModelConfig& config, const ConvertOptions& options);

}  // namespace mha2mla
