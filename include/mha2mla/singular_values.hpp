#pragma once
/// All singular values of a matrix.

#include <vector>

#include "mha2mla/matrix.hpp"

namespace mha2mla {

/// All singular values of A in descending order, from the eigenvalues of the Gram matrix of its smaller side in double.
/// Values below 1e-8 of the largest are rounding errors. Runs on the calling thread.
///
/// @param a [rows, columns]; may be empty.
/// @returns [min(rows, columns)]
/// @throws Error{numeric} if A is not finite or LAPACK fails.
[[nodiscard]] std::vector<double> singular_values(const Eigen::Ref<const Matrix>& a);

}  // namespace mha2mla
