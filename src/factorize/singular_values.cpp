#include "mha2mla/singular_values.hpp"

#include <lapacke.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "../linalg/tiled.hpp"
#include "mha2mla/error.hpp"

namespace mha2mla {

std::vector<double> singular_values(const Eigen::Ref<const Matrix>& a) {
    if (!a.allFinite()) throw Error(ErrorCode::numeric, "a matrix whose singular values are wanted is not finite");
    const auto n = static_cast<lapack_int>(std::min(a.rows(), a.cols()));
    if (n == 0) return {};
    std::vector<double> gram = gram_of_smaller_side<double>(a);
    std::vector<double> values(static_cast<std::size_t>(n));
    // A row-major upper triangle is a column-major lower one.
    const lapack_int info = LAPACKE_dsyevd(LAPACK_COL_MAJOR, 'N', 'L', n, gram.data(), n, values.data());
    if (info != 0) {
        throw Error(ErrorCode::numeric,
                    "eigenvalue decomposition failed: LAPACK dsyevd returned " + std::to_string(info));
    }
    std::reverse(values.begin(), values.end());
    for (double& value : values) value = std::sqrt(std::max(0.0, value));
    return values;
}

}  // namespace mha2mla
