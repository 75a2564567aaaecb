#include <algorithm>
#include <cmath>

#include "../linalg/blas.hpp"
#include "../linalg/cholesky.hpp"
#include "../linalg/tiled.hpp"
#include "../support/parallel.hpp"
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

/// Calls body(rows of one head, its factor) for the NoPE keys and the values of every KV head.
template <typename Body>
void for_each_head(Matrix& rows, std::int64_t nope_rows, const HeadWeights& heads, const Body& body) {
    const auto part = [&](std::int64_t first, const std::vector<MatrixD>& factors) {
        for (const MatrixD& factor : factors) {
            body(rows.middleRows(first, factor.rows()), factor);
            first += factor.rows();
        }
    };
    part(0, heads.key);
    part(nope_rows, heads.value);
}

KvFactors factorize_by(const Matrix& kv, std::int64_t nope_rows, const LatentWidths& widths, const SvdOptions& options,
                       const ErrorWeighting& weighting) {
    if (weighting.whitening == nullptr || weighting.whitening->hidden() != kv.cols()) {
        throw Error(ErrorCode::usage, "this SVD needs the second moment of this model's layer inputs");
    }
    KvFactors factors = factorize_joint(weigh_errors(kv, nope_rows, weighting), nope_rows, widths, options, weighting);
    factors.down_k = weighting.whitening->revert(factors.down_k);
    factors.up_k /= static_cast<float>(weighting.key_weight);
    if (weighting.heads == nullptr) return factors;
    Matrix up(kv.rows(), factors.up_k.cols());
    up << factors.up_k, factors.up_v;
    for_each_head(up, nope_rows, *weighting.heads, [](Eigen::Ref<Matrix> rows, const MatrixD& factor) {
        rows = factor.transpose().triangularView<Eigen::Upper>().solve(rows.cast<double>().eval()).cast<float>();
    });
    factors.up_k = up.topRows(nope_rows);
    factors.up_v = up.bottomRows(up.rows() - nope_rows);
    return factors;
}

}  // namespace

MatrixD second_moment(const Matrix& rows) {
    const std::int64_t n = rows.cols();
    const std::vector<double> upper = gram_of_columns<double>(rows);
    MatrixD moment = Eigen::Map<const MatrixD>(upper.data(), n, n) / static_cast<double>(rows.rows());
    moment.triangularView<Eigen::StrictlyLower>() = moment.transpose();
    return moment;
}

Eigen::VectorXd mean_of_rows(const Matrix& rows) {
    constexpr std::int64_t kStrip = 512;
    const std::int64_t strips = (rows.rows() + kStrip - 1) / kStrip;
    MatrixD sums = MatrixD::Zero(strips, rows.cols());
    parallel_for(strips, [&](std::int64_t strip, std::vector<float>&) {
        const std::int64_t end = std::min<std::int64_t>(rows.rows(), (strip + 1) * kStrip);
        for (std::int64_t row = strip * kStrip; row < end; ++row) sums.row(strip) += rows.row(row).cast<double>();
    });
    return sums.colwise().sum().transpose() / static_cast<double>(rows.rows());
}

Whitening::Whitening(MatrixD moment) : root_(std::move(moment)) {
    const std::int64_t n = root_.rows();
    if (!root_.allFinite()) refuse_moment("is not finite");
    if (n == 0 || root_.cols() != n || root_.diagonal().minCoeff() < 0) refuse_moment("is none");
    root_.diagonal().array() += std::max(kRidge * root_.diagonal().mean(), kLeastRidge);
    if (!cholesky_in_place(root_)) refuse_moment("is not positive");
    rounded_ = root_.cast<float>();
}

Matrix Whitening::apply(const Matrix& a) const { return project_left<float>(a, rounded_); }

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

double equal_energy_weight(const Matrix& weighted_kv, std::int64_t nope_rows) {
    const double keys = mean_square(weighted_kv.topRows(nope_rows));
    const double values = mean_square(weighted_kv.bottomRows(weighted_kv.rows() - nope_rows));
    return keys > 0 && values > 0 ? std::sqrt(values / keys) : 1.0;
}

Matrix weigh_errors(const Matrix& kv, std::int64_t nope_rows, const ErrorWeighting& weighting) {
    Matrix weighted = weighting.whitening->apply(kv);
    if (weighting.heads != nullptr) {
        for_each_head(weighted, nope_rows, *weighting.heads, [](Eigen::Ref<Matrix> rows, const MatrixD& factor) {
            rows = (factor.transpose() * rows.cast<double>()).cast<float>();
        });
    }
    weighted.topRows(nope_rows) *= static_cast<float>(weighting.key_weight);
    return weighted;
}

/// The joint factorisation that minimises E‖x·(A − A')ᵀ‖² over layer inputs x, with keys weighted, instead of ‖A −
/// A'‖²: the SVD is that of W·A·L, where L·Lᵀ = E xᵀx and W = diag(key_weight, 1); L⁻¹ goes into the down projection
/// and W⁻¹ into the up projection. With the identity and weight 1 it is `joint`.
KvFactors factorize_whitened(const Matrix& kv, std::int64_t nope_rows, const LatentWidths& widths,
                             const SvdOptions& options, const ErrorWeighting& weighting) {
    return factorize_by(kv, nope_rows, widths, options, {weighting.whitening, weighting.key_weight, nullptr});
}

/// The same with the factors of each KV head's M on the diagonal of W: E (q·e)² of key errors e over the text's queries
/// and inputs, and ‖W_o·e‖² of value errors.
KvFactors factorize_weighted(const Matrix& kv, std::int64_t nope_rows, const LatentWidths& widths,
                             const SvdOptions& options, const ErrorWeighting& weighting) {
    if (weighting.heads == nullptr) {
        throw Error(ErrorCode::usage, "the weighted SVD needs to know how much errors of each head count");
    }
    return factorize_by(kv, nope_rows, widths, options, weighting);
}

}  // namespace mha2mla
