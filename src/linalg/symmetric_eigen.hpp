#pragma once
#include <cstdint>
#include <vector>

#include "tridiagonal_eigen.hpp"

namespace mha2mla {

/// Householder tridiagonalisation, divide and conquer on the tridiagonal matrix, and the back-transformation of the
/// `count` wanted vectors only (Golub and Van Loan, Matrix Computations, 8.3-8.4).
///
/// @param matrix [n, n] row-major, of which the upper triangle is read; overwritten.
/// @throws Error{numeric} if LAPACK fails.
template <typename Real>
[[nodiscard]] LeadingEigen<Real> leading_eigenvectors(std::vector<Real>& matrix, std::int64_t n, std::int64_t count);

}  // namespace mha2mla
