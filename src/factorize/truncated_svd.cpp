#include <cblas.h>

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

#include "../linalg/symmetric_eigen.hpp"
#include "mha2mla/error.hpp"
#include "mha2mla/factorize.hpp"

namespace mha2mla {
namespace {

// BLAS by element type. `smaller` is the Gram matrix of A's smaller side: A·Aᵀ if A is wide, Aᵀ·A if it is tall.

void gram(bool wide, blasint n, blasint k, const float* a, blasint stride, float* out) {
    cblas_ssyrk(CblasRowMajor, CblasLower, wide ? CblasNoTrans : CblasTrans, n, k, 1.0F, a, stride, 0.0F, out, n);
}
void gram(bool wide, blasint n, blasint k, const double* a, blasint stride, double* out) {
    cblas_dsyrk(CblasRowMajor, CblasLower, wide ? CblasNoTrans : CblasTrans, n, k, 1.0, a, stride, 0.0, out, n);
}
void multiply(CBLAS_TRANSPOSE transpose_b, blasint m, blasint n, blasint k, const float* a, blasint a_stride,
              const float* b, blasint b_stride, float* c) {
    cblas_sgemm(CblasRowMajor, CblasNoTrans, transpose_b, m, n, k, 1.0F, a, a_stride, b, b_stride, 0.0F, c, n);
}
void multiply(CBLAS_TRANSPOSE transpose_b, blasint m, blasint n, blasint k, const double* a, blasint a_stride,
              const double* b, blasint b_stride, double* c) {
    cblas_dgemm(CblasRowMajor, CblasNoTrans, transpose_b, m, n, k, 1.0, a, a_stride, b, b_stride, 0.0, c, n);
}

template <typename Real>
using RowMajor = Eigen::Matrix<Real, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

/// Makes the entry of largest magnitude of each vector positive.
template <typename Real>
void fix_signs(std::vector<Real>& vectors, std::size_t length) {
    for (std::size_t first = 0; first < vectors.size(); first += length) {
        const std::span<Real> vector(vectors.data() + first, length);
        const auto largest =
            std::max_element(vector.begin(), vector.end(), [](Real a, Real b) { return std::abs(a) < std::abs(b); });
        if (*largest >= 0) continue;
        for (Real& value : vector) value = -value;
    }
}

/// Shares out the singular values: `orthonormal` has unit vectors and `projected` vectors of length σ, one in each of
/// `count` vectors. @param kept exponent of σ that stays with `projected`.
double place_sigma(Eigen::Ref<Matrix> orthonormal, Eigen::Ref<Matrix> projected, bool vectors_are_columns,
                   double kept) {
    double energy = 0;
    const Eigen::Index count = vectors_are_columns ? projected.cols() : projected.rows();
    for (Eigen::Index i = 0; i < count; ++i) {
        const auto scale = [&](auto&& unit, auto&& sized) {
            const double singular = std::sqrt(sized.template cast<double>().squaredNorm());
            energy += singular * singular;
            if (singular <= 0) return;
            sized *= static_cast<float>(std::pow(singular, kept - 1.0));
            unit *= static_cast<float>(std::pow(singular, 1.0 - kept));
        };
        if (vectors_are_columns) {
            scale(orthonormal.row(i), projected.col(i));
        } else {
            scale(orthonormal.col(i), projected.row(i));
        }
    }
    return energy;
}

/// @param a [rows, columns], contiguous.
template <typename Real>
LowRank decompose(const Real* a, std::int64_t rows, std::int64_t columns, std::int64_t rank, SigmaPlacement sigma) {
    const bool wide = rows <= columns;
    const std::int64_t n = std::min(rows, columns);
    const auto narrow = [](std::int64_t value) { return static_cast<blasint>(value); };
    LeadingEigen<Real> leading;
    {
        std::vector<Real> matrix(static_cast<std::size_t>(n * n));
        gram(wide, narrow(n), narrow(std::max(rows, columns)), a, narrow(columns), matrix.data());
        leading = leading_eigenvectors(matrix, n, rank);
    }
    fix_signs(leading.vectors, static_cast<std::size_t>(n));
    // A ≈ U (Uᵀ A) or (A V) Vᵀ: a projection, and so the best approximation whatever the size of the singular values.
    const Eigen::Map<const RowMajor<Real>> basis(leading.vectors.data(), rank, n);
    LowRank result;
    RowMajor<Real> projected(wide ? rank : rows, wide ? columns : rank);
    if (wide) {
        multiply(CblasNoTrans, narrow(rank), narrow(columns), narrow(n), basis.data(), narrow(n), a, narrow(columns),
                 projected.data());
        result.up = basis.transpose().template cast<float>();
        result.down = projected.template cast<float>();
        const double kept = sigma == SigmaPlacement::up ? 0.0 : sigma == SigmaPlacement::down ? 1.0 : 0.5;
        result.retained_energy = place_sigma(result.up, result.down, false, kept);
    } else {
        multiply(CblasTrans, narrow(rows), narrow(rank), narrow(n), a, narrow(columns), basis.data(), narrow(n),
                 projected.data());
        result.up = projected.template cast<float>();
        result.down = basis.template cast<float>();
        const double kept = sigma == SigmaPlacement::up ? 1.0 : sigma == SigmaPlacement::down ? 0.0 : 0.5;
        result.retained_energy = place_sigma(result.down, result.up, true, kept);
    }
    return result;
}

}  // namespace

LowRank truncated_svd(const Matrix& a, std::int64_t rank, const SvdOptions& options) {
    const std::int64_t smaller = std::min(a.rows(), a.cols());
    if (rank < 1 || rank > smaller) {
        throw Error(ErrorCode::usage, "rank " + std::to_string(rank) + " is not possible for a matrix of " +
                                          std::to_string(a.rows()) + " x " + std::to_string(a.cols()) +
                                          "; choose from 1 to " + std::to_string(smaller));
    }
    if (!a.allFinite()) throw Error(ErrorCode::numeric, "the matrix to factorise is not finite");
    const double norm = std::sqrt(a.cast<double>().squaredNorm());
    // Extreme weights are scaled by a power of two, which changes no digit, to keep their squares in range.
    const bool extreme = norm > 0 && (norm < 1e-9 || norm > 1e9);
    const float scale = extreme ? static_cast<float>(std::exp2(-std::floor(std::log2(norm)))) : 1.0F;
    LowRank result;
    if (options.precision == SvdPrecision::f64) {
        const MatrixD scaled = (a * scale).cast<double>();
        result = decompose(scaled.data(), a.rows(), a.cols(), rank, options.sigma);
    } else if (scale == 1.0F) {
        result = decompose(a.data(), a.rows(), a.cols(), rank, options.sigma);
    } else {
        const Matrix scaled = a * scale;
        result = decompose(scaled.data(), a.rows(), a.cols(), rank, options.sigma);
    }
    // What was scaled goes back to where Σ is.
    const float share = options.sigma == SigmaPlacement::balanced ? std::sqrt(scale) : scale;
    if (options.sigma != SigmaPlacement::down) result.up *= 1.0F / share;
    if (options.sigma != SigmaPlacement::up) result.down *= 1.0F / share;
    result.total_energy = norm * norm;
    result.retained_energy /= static_cast<double>(scale) * scale;
    return result;
}

}  // namespace mha2mla
