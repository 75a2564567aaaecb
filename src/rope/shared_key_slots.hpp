#pragma once
/// Which components of the shared key keep their rotation, and at which frequency each.

#include <vector>

#include "shared_key.hpp"

namespace mha2mla {

/// How much less wrong the scores are if a component turns at a frequency than if it does not turn. [frequencies,
/// components]
///
/// The error of component c at frequency ω (0: it stops) is Σ_heads E|Σ_k conj(T⁻¹_kc)·q_k·(e^(i(θ_k−ω)Δ) − a_k)|² ·
/// E|κ'_c|², over queries q and distances Δ as the layer's attention has them, a_k the query's factor (QueryTurn). In a
/// block of one pair with the factor `mean` that is s_c²·(1 − |Σ p(Δ)·e^(i(θ−ω)Δ)|²).
/// @param frequencies that components may get.
[[nodiscard]] MatrixD rotation_values(const OriginalAttention& layer, const std::vector<SharedKeyBlock>& blocks,
                                      const QueryKeyMoments& moments, const MatrixD& attention, QueryTurn turn,
                                      const std::vector<double>& frequencies);

/// The frequencies of a layer's pairs, each once, falling.
[[nodiscard]] std::vector<double> frequencies_of(const std::vector<HeadPair>& pairs);

/// The `count` components whose rotation is worth most, each at its own best frequency of `frequencies`, which is that
/// of its block's middle pair unless another one is better.
/// @param values rotation_values() of `frequencies`. @throws Error{usage} if there are fewer components.
[[nodiscard]] std::vector<SharedKeySlot> free_slots(const std::vector<HeadPair>& pairs,
                                                    const std::vector<SharedKeyBlock>& blocks, const MatrixD& values,
                                                    const std::vector<double>& frequencies, std::int64_t count);

/// A component for each of `frequencies`, so that the sum of values is largest.
/// @param values rotation_values() of `frequencies`. @throws Error{usage} if there are fewer components.
[[nodiscard]] std::vector<SharedKeySlot> fixed_slots(const std::vector<SharedKeyBlock>& blocks, const MatrixD& values,
                                                     const std::vector<double>& frequencies);

/// `count` frequencies, some perhaps more than once, that serve all layers: those whose best assignments have the
/// largest sum over layers, found by adding the best one at a time and then exchanging single ones while that helps.
/// Each layer's values count in proportion to `weights`.
/// @param values rotation_values() of `frequencies` in each layer.
/// @return falling.
[[nodiscard]] std::vector<double> shared_frequencies(const std::vector<MatrixD>& values,
                                                     const std::vector<double>& weights,
                                                     const std::vector<double>& frequencies, std::int64_t count);

}  // namespace mha2mla
