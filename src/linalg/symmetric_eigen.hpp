#pragma once
#include <cstdint>
#include <vector>

#include "tiled.hpp"

namespace mha2mla {

template <typename Real>
struct LeadingEigen {
    std::vector<Real> values;  // [n], all of them, falling
    RowMajor<Real> vectors;    // [count, n], one in a row, of the largest values
};

/// LAPACK's Householder tridiagonalisation and divide and conquer, and the back-transformation of the `count` wanted
/// vectors only (Golub and Van Loan, Matrix Computations, 8.3-8.4). The result does not depend on the number of
/// threads.
///
/// Memory beside the matrix: 2 n² numbers.
///
/// @param matrix [n, n] row-major, of which the upper triangle is read; overwritten.
/// @throws Error{numeric} if LAPACK fails.
template <typename Real>
[[nodiscard]] LeadingEigen<Real> leading_eigenvectors(std::vector<Real>& matrix, std::int64_t n, std::int64_t count);

}  // namespace mha2mla
