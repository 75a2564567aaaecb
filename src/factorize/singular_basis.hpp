#pragma once
/// Leading singular vectors of the smaller side of a matrix, by each of the methods.

#include "../linalg/tiled.hpp"

namespace mha2mla {

template <typename Real>
struct SingularBasis {
    RowMajor<Real> vectors;  // [rank, min(rows, columns)], orthonormal rows, largest singular value first
    double excess = 0;       // estimate of how far their approximation error exceeds the optimal one, relatively
};

/// By the Gram matrix in double. The excess is that of rounding, far below 1e-9.
[[nodiscard]] SingularBasis<double> double_basis(const MatrixRef& a, std::int64_t rank);

/// By the Gram matrix in float32, its outliers taken out first. The excess is predicted from the spectrum.
[[nodiscard]] SingularBasis<float> single_basis(const MatrixRef& a, std::int64_t rank);

/// Whether krylov_basis() is likely to be faster than the others.
[[nodiscard]] bool suits_krylov(std::int64_t rows, std::int64_t columns, std::int64_t rank);
/// By block Krylov iteration in float32 until the excess is at most `max_excess`; if it is still larger when the basis
/// would no longer be small, the excess says so.
[[nodiscard]] SingularBasis<float> krylov_basis(const MatrixRef& a, std::int64_t rank, double max_excess);

}  // namespace mha2mla
