#pragma once
#include <cstdint>
#include <vector>

#include "tiled.hpp"

namespace mha2mla {

/// Eigenvectors that stand out from a spectrum, found before the rest.
struct DominantPart {
    std::vector<double> values;  // [count], falling
    RowMajor<float> vectors;     // [count, n], orthonormal
    double coupling = 0;         // Σ ‖G u − θ u‖² / θ: energy that fixing them may cost, at most
};

/// Takes the outliers out of a Gram matrix: the leading Ritz vectors of a few steps of subspace iteration that are
/// accurate enough for the energy that they may cost to stay below `tolerance`. In `gram` their eigenvalues become
/// negative, so that they do not come back among the leading vectors of the rest. What remains has a smaller norm, and
/// with it smaller rounding errors, which are relative to the norm.
///
/// @param gram [n, n] row-major, the upper triangle, float32.
/// @param most how many vectors are wanted at most.
[[nodiscard]] DominantPart deflate_dominant(std::vector<float>& gram, std::int64_t n, std::int64_t most,
                                            double tolerance);

}  // namespace mha2mla
