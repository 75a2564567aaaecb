#include <cblas.h>
#include <lapacke.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "mha2mla/error.hpp"
#include "mha2mla/spectrum.hpp"

namespace mha2mla {

std::vector<double> singular_values(const Matrix& a) {
    if (!a.allFinite()) throw Error(ErrorCode::numeric, "a matrix whose singular values are wanted is not finite");
    const auto n = static_cast<lapack_int>(std::min(a.rows(), a.cols()));
    if (n == 0) return {};
    const auto side = static_cast<std::size_t>(n);
    std::vector<double> gram(side * side), values(side);
    {
        const MatrixD wide = a.cast<double>();
        cblas_dsyrk(CblasRowMajor, CblasLower, a.rows() <= a.cols() ? CblasNoTrans : CblasTrans, n,
                    static_cast<blasint>(std::max(a.rows(), a.cols())), 1.0, wide.data(),
                    static_cast<blasint>(a.cols()), 0.0, gram.data(), n);
    }
    // A row-major lower triangle is a column-major upper one.
    const lapack_int info = LAPACKE_dsyevd(LAPACK_COL_MAJOR, 'N', 'U', n, gram.data(), n, values.data());
    if (info != 0) {
        throw Error(ErrorCode::numeric,
                    "eigenvalue decomposition failed: LAPACK dsyevd returned " + std::to_string(info));
    }
    std::reverse(values.begin(), values.end());
    for (double& value : values) value = std::sqrt(std::max(0.0, value));
    return values;
}

}  // namespace mha2mla
