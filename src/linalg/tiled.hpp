#pragma once
/// The large products of a truncated SVD, divided into tiles that do not depend on the number of threads.

#include <Eigen/Core>
#include <vector>

#include "mha2mla/matrix.hpp"

namespace mha2mla {

using MatrixRef = Eigen::Ref<const Matrix>;

template <typename Real>
using RowMajor = Eigen::Matrix<Real, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

/// ‖A‖², summed in double.
[[nodiscard]] double squared_norm(const MatrixRef& a);

/// Gram matrix of A's smaller side, computed in Real: A·Aᵀ if A has no more rows than columns, otherwise Aᵀ·A.
/// @return [n, n] row-major, the upper triangle filled.
template <typename Real>
[[nodiscard]] std::vector<Real> gram_of_smaller_side(const MatrixRef& a);
/// The same, always Aᵀ·A.
template <typename Real>
[[nodiscard]] std::vector<Real> gram_of_columns(const MatrixRef& a);

/// basis · A, [count, columns]. @param basis [count, rows of A]
template <typename Real>
[[nodiscard]] RowMajor<Real> project_left(Eigen::Ref<const RowMajor<Real>> basis, const MatrixRef& a);
/// A · basisᵀ, [rows, count]. @param basis [count, columns of A]
template <typename Real>
[[nodiscard]] RowMajor<Real> project_right(const MatrixRef& a, Eigen::Ref<const RowMajor<Real>> basis);

}  // namespace mha2mla
