#pragma once
#include <cstdint>
#include <deque>
#include <vector>

#include "tiled.hpp"

namespace mha2mla {

/// Eigenvalues, rising, and eigenvectors of a piece of a tridiagonal matrix.
template <typename Real>
struct EigenPiece {
    std::vector<Real> values;  // [size]
    RowMajor<Real> vectors;    // [size or fewer, size], one in a row; fewer are those of the largest values
};

/// Eigenvalues and the `count` last eigenvectors of
///   [left 0; 0 right] + |coupling| u·uᵀ,  u = (0, ..., 0, 1, sign(coupling), 0, ..., 0),
/// where the two ones stand at the end of the left piece and the start of the right one.
/// @throws Error{numeric} if LAPACK cannot solve a secular equation.
template <typename Real>
[[nodiscard]] EigenPiece<Real> merge_pieces(EigenPiece<Real> left, EigenPiece<Real> right, Real coupling,
                                            std::int64_t count);

}  // namespace mha2mla
