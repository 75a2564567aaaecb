#pragma once
#include <cstdint>
#include <vector>

namespace mha2mla {

/// The `count` largest eigenvalues, falling, and their eigenvectors, one after another.
template <typename Real>
struct LeadingEigen {
    std::vector<Real> values;   // [count]
    std::vector<Real> vectors;  // [count, n]
};

/// Householder tridiagonalisation, divide and conquer on the tridiagonal matrix, and the back-transformation of the
/// wanted vectors only. Runs on the calling thread.
///
/// @param matrix [n, n] row-major, of which the lower triangle is read; overwritten.
/// @throws Error{numeric} if LAPACK fails.
template <typename Real>
[[nodiscard]] LeadingEigen<Real> leading_eigenvectors(std::vector<Real>& matrix, std::int64_t n, std::int64_t count);

}  // namespace mha2mla
