#pragma once
/// Leading singular vectors of the smaller side of a matrix, by each of the methods.

#include "../linalg/tiled.hpp"

namespace mha2mla {

template <typename Real>
struct SingularBasis {
    RowMajor<Real> vectors;  // [rank, min(rows, columns)], orthonormal rows, largest singular value first
    double excess = 0;       // estimate of (approximation error / optimal error) - 1
};

/// Uses the Gram matrix in double. The excess is due to rounding and far below 1e-9.
[[nodiscard]] SingularBasis<double> double_basis(const MatrixRef& a, std::int64_t rank);

/// Uses the Gram matrix in float32 after removing its outliers. The excess is predicted from the spectrum.
[[nodiscard]] SingularBasis<float> single_basis(const MatrixRef& a, std::int64_t rank);

/// Whether krylov_basis() is likely to be faster than the others.
[[nodiscard]] bool suits_krylov(std::int64_t rows, std::int64_t columns, std::int64_t rank);
/// Uses block Krylov iteration in float32 until the excess is at most `max_excess` or the basis is no longer small; in
/// the second case the returned excess is larger.
[[nodiscard]] SingularBasis<float> krylov_basis(const MatrixRef& a, std::int64_t rank, double max_excess);

}  // namespace mha2mla
