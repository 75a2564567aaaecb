#pragma once
#include "mha2mla/matrix.hpp"

namespace mha2mla {

/// A = L·Lᵀ by LAPACK; A becomes L. @param a [n, n], symmetric; its lower triangle is read.
/// @return whether A is positive definite. What is left in it otherwise is of no use.
[[nodiscard]] bool cholesky_in_place(MatrixD& a);

/// Replaces each row b by the x with x·L·Lᵀ = b. @param root L. Runs on the team; the result does not depend on it.
void solve_rows(const MatrixD& root, MatrixD& rows);
/// Replaces B by the X with Lᵀ·X = B. As above.
void solve_transposed(const MatrixD& root, MatrixD& b);

}  // namespace mha2mla
