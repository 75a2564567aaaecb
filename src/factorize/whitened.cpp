#include <lapacke.h>

#include <algorithm>
#include <cmath>

#include "../linalg/blas.hpp"
#include "../linalg/parallel.hpp"
#include "../linalg/tiled.hpp"
#include "factorizations.hpp"
#include "mha2mla/error.hpp"

namespace mha2mla {
namespace {

constexpr double kLeastRidge = 1e-30;  // of a moment that is zero

[[noreturn]] void refuse_moment(const char* problem) {
    throw Error(ErrorCode::numeric, std::string("the second moment of a layer's input ") + problem +
                                        "; does the checkpoint hold NaN or infinite weights?");
}

double mean_square(Eigen::Ref<const Matrix> rows) {
    return rows.size() == 0 ? 0 : squared_norm(rows) / static_cast<double>(rows.rows());
}

}  // namespace

Whitening::Whitening(MatrixD moment) : root_(std::move(moment)) {
    const std::int64_t n = root_.rows();
    if (!root_.allFinite()) refuse_moment("is not finite");
    if (n == 0 || root_.cols() != n || root_.diagonal().minCoeff() < 0) refuse_moment("is none");
    root_.diagonal().array() += std::max(kRidge * root_.diagonal().mean(), kLeastRidge);
    // Lower in rows is upper in columns, which is how LAPACK works without copies.
    const lapack_int failed =
        LAPACKE_dpotrf(LAPACK_COL_MAJOR, 'U', static_cast<lapack_int>(n), root_.data(), static_cast<lapack_int>(n));
    if (failed != 0) refuse_moment("is not positive");
    root_.triangularView<Eigen::StrictlyUpper>().setZero();
}

Matrix Whitening::apply(const Matrix& a) const { return project_right<float>(a, root_.transpose().cast<float>()); }

Matrix Whitening::revert(const Matrix& b) const {
    constexpr std::int64_t kStrip = 64;
    const std::int64_t n = root_.rows();
    MatrixD result = b.cast<double>();
    parallel_for((b.rows() + kStrip - 1) / kStrip, [&](std::int64_t strip, std::vector<float>&) {
        const std::int64_t first = strip * kStrip;
        cblas_dtrsm(CblasRowMajor, CblasRight, CblasLower, CblasNoTrans, CblasNonUnit,
                    blas_int(std::min(kStrip, b.rows() - first)), blas_int(n), 1.0, root_.data(), blas_int(n),
                    result.data() + first * n, blas_int(n));
    });
    return result.cast<float>();
}

double equal_energy_weight(const Matrix& whitened_kv, std::int64_t nope_rows) {
    const double keys = mean_square(whitened_kv.topRows(nope_rows));
    const double values = mean_square(whitened_kv.bottomRows(whitened_kv.rows() - nope_rows));
    return keys > 0 && values > 0 ? std::sqrt(values / keys) : 1.0;
}

/// The joint factorisation that minimises E‖x·(A − A')ᵀ‖² over layer inputs x, with keys weighted, instead of ‖A −
/// A'‖²: the SVD is that of W·A·L, where L·Lᵀ = E xᵀx and W = diag(key_weight, 1); L⁻¹ goes into the down projection
/// and W⁻¹ into the up projection. With the identity and weight 1 it is `joint`.
KvFactors factorize_whitened(const Matrix& kv, std::int64_t nope_rows, const LatentWidths& widths,
                             const SvdOptions& options, const ErrorWeighting& weighting) {
    if (weighting.whitening == nullptr || weighting.whitening->hidden() != kv.cols()) {
        throw Error(ErrorCode::usage, "the whitened SVD needs the second moment of this model's layer inputs");
    }
    Matrix weighted = weighting.whitening->apply(kv);
    weighted.topRows(nope_rows) *= static_cast<float>(weighting.key_weight);
    KvFactors factors = factorize_joint(weighted, nope_rows, widths, options, weighting);
    factors.down_k = weighting.whitening->revert(factors.down_k);
    factors.up_k /= static_cast<float>(weighting.key_weight);
    return factors;
}

}  // namespace mha2mla
