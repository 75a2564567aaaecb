#include "cholesky.hpp"

#include <lapacke.h>

#include <Eigen/Core>
#include <algorithm>

#include "../support/parallel.hpp"
#include "blas.hpp"

namespace mha2mla {
namespace {

constexpr std::int64_t kStrip = 64;

}  // namespace

// Lower in rows is upper in columns, which is how LAPACK works without copies.
bool cholesky_in_place(MatrixD& a) {
    const auto n = static_cast<lapack_int>(a.rows());
    if (LAPACKE_dpotrf(LAPACK_COL_MAJOR, 'U', n, a.data(), n) != 0) return false;
    a.triangularView<Eigen::StrictlyUpper>().setZero();
    return true;
}

void solve_rows(const MatrixD& root, MatrixD& rows) {
    const std::int64_t n = root.rows();
    parallel_for((rows.rows() + kStrip - 1) / kStrip, [&](std::int64_t strip, std::vector<float>&) {
        const std::int64_t first = strip * kStrip;
        for (const CBLAS_TRANSPOSE trans : {CblasTrans, CblasNoTrans}) {
            cblas_dtrsm(CblasRowMajor, CblasRight, CblasLower, trans, CblasNonUnit,
                        blas_int(std::min(kStrip, rows.rows() - first)), blas_int(n), 1.0, root.data(), blas_int(n),
                        rows.data() + first * n, blas_int(n));
        }
    });
}

void solve_transposed(const MatrixD& root, MatrixD& b) {
    const std::int64_t n = root.rows(), columns = b.cols();
    parallel_for((columns + kStrip - 1) / kStrip, [&](std::int64_t strip, std::vector<float>&) {
        const std::int64_t first = strip * kStrip;
        cblas_dtrsm(CblasRowMajor, CblasLeft, CblasLower, CblasTrans, CblasNonUnit, blas_int(n),
                    blas_int(std::min(kStrip, columns - first)), 1.0, root.data(), blas_int(n), b.data() + first,
                    blas_int(columns));
    });
}

}  // namespace mha2mla
