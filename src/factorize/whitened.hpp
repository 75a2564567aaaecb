#pragma once
#include "mha2mla/factorize.hpp"

namespace mha2mla {

/// The joint factorisation that minimises E‖x·(A − A')ᵀ‖² over layer inputs x instead of ‖A − A'‖²: the SVD is that of
/// A·C^½, where C = E xᵀx, and C^-½ goes into the down projection. With C the identity it is factorize() with `joint`.
///
/// @param kv, nope_rows, widths as for factorize().
/// @param moment C, [hidden, hidden]. kMomentRidge of its mean diagonal is added to it, so that it may be singular.
/// @param key_weight errors of NoPE keys count this much more than errors of values.
[[nodiscard]] KvFactors factorize_whitened(const Matrix& kv, std::int64_t nope_rows, const LatentWidths& widths,
                                           const SvdOptions& options, const MatrixD& moment, double key_weight);

inline constexpr double kMomentRidge = 1e-4;

}  // namespace mha2mla
