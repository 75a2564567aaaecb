#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>
#include <vector>

#include "../support/parallel.hpp"
#include "mha2mla/error.hpp"
#include "mha2mla/factorize.hpp"
#include "singular_basis.hpp"

namespace mha2mla {
namespace {

constexpr double kStandardExcess = 1e-5;
/// Below this size double costs almost nothing.
constexpr std::int64_t kSmall = 256;
/// Columns per work item of a thread.
constexpr std::int64_t kTile = 256;

/// Makes the entry of largest magnitude of each row positive.
template <typename Real>
void fix_signs(RowMajor<Real>& vectors) {
    for (Eigen::Index i = 0; i < vectors.rows(); ++i) {
        Eigen::Index largest = 0;
        vectors.row(i).cwiseAbs().maxCoeff(&largest);
        if (vectors(i, largest) < 0) vectors.row(i) = -vectors.row(i);
    }
}

Matrix in_float(Matrix matrix) { return matrix; }
Matrix in_float(const RowMajor<double>& matrix) { return matrix.cast<float>(); }

/// The lengths of the rows of `matrix`, or of its columns, summed in double.
std::vector<double> lengths(const Matrix& matrix, bool of_columns) {
    Eigen::ArrayXd squares = Eigen::ArrayXd::Zero(of_columns ? matrix.cols() : matrix.rows());
    if (of_columns) {
        const std::int64_t tiles = (matrix.cols() + kTile - 1) / kTile;
        parallel_for(tiles, [&](std::int64_t tile, std::vector<float>&) {
            const std::int64_t first = tile * kTile;
            const std::int64_t count = std::min<std::int64_t>(kTile, matrix.cols() - first);
            for (Eigen::Index i = 0; i < matrix.rows(); ++i) {
                squares.segment(first, count) +=
                    matrix.row(i).segment(first, count).transpose().array().cast<double>().square();
            }
        });
    } else {
        parallel_for(matrix.rows(), [&](std::int64_t i, std::vector<float>&) {
            squares[i] = matrix.row(i).cast<double>().squaredNorm();
        });
    }
    squares = squares.sqrt();
    return {squares.begin(), squares.end()};
}

/// Multiplies row i by singular[i]^power; rows with a singular value of 0 are not changed.
void scale_rows(Matrix& rows, const std::vector<double>& singular, double power) {
    if (power == 0) return;
    parallel_for(rows.rows(), [&](std::int64_t i, std::vector<float>&) {
        const double value = singular[static_cast<std::size_t>(i)];
        if (value > 0) rows.row(i) *= static_cast<float>(std::pow(value, power));
    });
}

/// Multiplies column i in the same way.
void scale_columns(Matrix& columns, const std::vector<double>& singular, double power) {
    if (power == 0) return;
    Eigen::RowVectorXf factors(columns.cols());
    for (Eigen::Index i = 0; i < columns.cols(); ++i) {
        const double value = singular[static_cast<std::size_t>(i)];
        factors[i] = value > 0 ? static_cast<float>(std::pow(value, power)) : 1.0F;
    }
    parallel_for(columns.rows(),
                 [&](std::int64_t i, std::vector<float>&) { columns.row(i).array() *= factors.array(); });
}

/// A ≈ U (Uᵀ A) or (A V) Vᵀ: a projection, and therefore the best approximation for any size of the singular values.
template <typename Real>
LowRank project(const MatrixRef& a, SingularBasis<Real> basis, SigmaPlacement sigma) {
    fix_signs(basis.vectors);
    LowRank result;
    result.excess = basis.excess;
    const bool wide = a.rows() <= a.cols();
    // The projection has vectors of length σ and keeps the factor σ^kept.
    const double kept = sigma == SigmaPlacement::balanced ? 0.5 : (sigma == SigmaPlacement::down) == wide ? 1.0 : 0.0;
    Matrix& projected = wide ? result.down : result.up;
    projected = in_float(wide ? project_left<Real>(basis.vectors, a) : project_right<Real>(a, basis.vectors));
    Matrix orthonormal = in_float(std::move(basis.vectors));
    const std::vector<double> singular = lengths(projected, !wide);
    for (const double value : singular) result.retained_energy += value * value;
    scale_rows(orthonormal, singular, 1.0 - kept);
    if (wide) {
        scale_rows(projected, singular, kept - 1.0);
        result.up = orthonormal.transpose();
    } else {
        scale_columns(projected, singular, kept - 1.0);
        result.down = std::move(orthonormal);
    }
    return result;
}

/// The cheapest sufficient basis in float32, or nothing if double is required.
std::optional<SingularBasis<float>> cheap_basis(const MatrixRef& a, std::int64_t rank, const SvdOptions& options) {
    if (options.method == SvdMethod::strict || std::min(a.rows(), a.cols()) < kSmall) return std::nullopt;
    const bool fast = options.method == SvdMethod::fast;
    if (fast && suits_krylov(a.rows(), a.cols(), rank)) {
        auto basis = krylov_basis(a, rank, options.max_excess);
        if (basis.excess <= options.max_excess) return basis;
    }
    auto basis = single_basis(a, rank);
    if (basis.excess <= (fast ? std::max(options.max_excess, kStandardExcess) : kStandardExcess)) return basis;
    return std::nullopt;
}

LowRank decompose(const MatrixRef& a, std::int64_t rank, const SvdOptions& options) {
    if (auto basis = cheap_basis(a, rank, options)) return project(a, *std::move(basis), options.sigma);
    return project(a, double_basis(a, rank), options.sigma);
}

}  // namespace

std::uint64_t svd_bytes(std::uint64_t rows, std::uint64_t columns) {
    // In double: the Gram matrix, the eigenvectors of the tridiagonal matrix, and the workspace for them.
    const std::uint64_t n = std::min(rows, columns);
    return 3 * sizeof(double) * n * n;
}

LowRank truncated_svd(const Eigen::Ref<const Matrix>& a, std::int64_t rank, const SvdOptions& options) {
    const std::int64_t smaller = std::min(a.rows(), a.cols());
    if (rank < 1 || rank > smaller) {
        throw Error(ErrorCode::usage, "rank " + std::to_string(rank) + " is not possible for a matrix of " +
                                          std::to_string(a.rows()) + " x " + std::to_string(a.cols()) +
                                          "; choose from 1 to " + std::to_string(smaller));
    }
    const double norm = std::sqrt(squared_norm(a));
    if (!std::isfinite(norm)) throw Error(ErrorCode::numeric, "the matrix to factorise is not finite");
    // Extreme weights are scaled by a power of two, which is exact, so that their squares stay in range.
    const bool extreme = norm > 0 && (norm < 1e-9 || norm > 1e9);
    const float scale = extreme ? static_cast<float>(std::exp2(-std::floor(std::log2(norm)))) : 1.0F;
    LowRank result = extreme ? decompose(a * scale, rank, options) : decompose(a, rank, options);
    // The scale is undone in the factor that contains Σ.
    const float share = options.sigma == SigmaPlacement::balanced ? std::sqrt(scale) : scale;
    if (extreme && options.sigma != SigmaPlacement::down) result.up *= 1.0F / share;
    if (extreme && options.sigma != SigmaPlacement::up) result.down *= 1.0F / share;
    result.total_energy = norm * norm;
    result.retained_energy /= static_cast<double>(scale) * scale;
    return result;
}

}  // namespace mha2mla
