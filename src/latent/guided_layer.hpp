#pragma once
#include "factor_layer.hpp"
#include "mha2mla/calibration.hpp"

namespace mha2mla {

/// What is asked of a layer that is made with the help of text.
struct GuideRequest {
    Factorization factorization = Factorization::joint;
    std::int64_t kv_rank = 0;
    SvdOptions svd;
    KvBalance balance;  // of `whitened` and `weighted`
    NopePhase nope_phase = NopePhase::zero;
};

/// A layer that is made with the help of text.
struct GuidedLayer {
    Matrix q;       // rows as in a converted checkpoint, with the phases of NoPE pairs
    Vector q_bias;  // empty where the family has none
    KvFactors factors;
    double balance = 0;  // KvBalance::factor that was used; 0 where there is none
};

/// The phases and the factorisation that are asked for.
/// @param pairs that keep RoPE, by KV head. @param kv as for factorize().
/// @param inputs of this model's layers: moments for `whitened` and `weighted`, and samples.
/// @throws Error{usage} without inputs of this model, Error{numeric}.
[[nodiscard]] GuidedLayer guide_layer(const Model& model, std::int64_t layer, const LayerPairs& pairs, const Matrix& kv,
                                      const GuideRequest& request, const LayerInputs* inputs);

/// What it takes beside the matrix and what factorize() takes.
[[nodiscard]] std::uint64_t guiding_bytes(const ModelConfig& config, std::int64_t kv_rank);

}  // namespace mha2mla
