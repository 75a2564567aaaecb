#pragma once
#include <cstdint>
#include <vector>

#include "tiled.hpp"

namespace mha2mla {

/// The eigenvectors of outliers of a spectrum, computed before the others.
struct DominantPart {
    std::vector<double> values;  // [count], descending
    RowMajor<float> vectors;     // [count, n], orthonormal
    double coupling = 0;         // Σ ‖G u − θ u‖² / θ: upper bound of the energy lost by fixing them
};

/// Removes the outliers from a Gram matrix: the leading Ritz vectors of a few steps of subspace iteration, if they are
/// accurate enough that the energy lost by fixing them is below `tolerance`. Their eigenvalues in `gram` become
/// negative, so that they are not among the leading vectors of the rest. The rest has a smaller norm, and so smaller
/// rounding errors, which are relative to it.
///
/// @param gram [n, n] row-major, the upper triangle, float32.
/// @param most the largest number of vectors.
[[nodiscard]] DominantPart deflate_dominant(std::vector<float>& gram, std::int64_t n, std::int64_t most,
                                            double tolerance);

}  // namespace mha2mla
