#include <algorithm>
#include <cmath>
#include <optional>

#include "mha2mla/error.hpp"
#include "mha2mla/factorize.hpp"
#include "singular_basis.hpp"

namespace mha2mla {
namespace {

constexpr double kStandardExcess = 1e-5;
/// Below this double costs next to nothing.
constexpr std::int64_t kSmall = 256;

/// Makes the entry of largest magnitude of each row positive.
template <typename Real>
void fix_signs(RowMajor<Real>& vectors) {
    for (Eigen::Index i = 0; i < vectors.rows(); ++i) {
        Eigen::Index largest = 0;
        vectors.row(i).cwiseAbs().maxCoeff(&largest);
        if (vectors(i, largest) < 0) vectors.row(i) = -vectors.row(i);
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

/// A ≈ U (Uᵀ A) or (A V) Vᵀ: a projection, and so the best approximation whatever the size of the singular values.
template <typename Real>
LowRank project(const MatrixRef& a, SingularBasis<Real> basis, SigmaPlacement sigma) {
    fix_signs(basis.vectors);
    LowRank result;
    result.excess = basis.excess;
    if (a.rows() <= a.cols()) {
        result.down = project_left<Real>(basis.vectors, a).template cast<float>();
        result.up = basis.vectors.transpose().template cast<float>();
        const double kept = sigma == SigmaPlacement::up ? 0.0 : sigma == SigmaPlacement::down ? 1.0 : 0.5;
        result.retained_energy = place_sigma(result.up, result.down, false, kept);
    } else {
        result.up = project_right<Real>(a, basis.vectors).template cast<float>();
        result.down = basis.vectors.template cast<float>();
        const double kept = sigma == SigmaPlacement::up ? 1.0 : sigma == SigmaPlacement::down ? 0.0 : 0.5;
        result.retained_energy = place_sigma(result.down, result.up, true, kept);
    }
    return result;
}

/// The cheapest basis that is good enough, in float32; nothing if only double will do.
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
    // In double: the Gram matrix, the eigenvectors of the tridiagonal matrix, and the workspace that finds them.
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
    // Extreme weights are scaled by a power of two, which changes no digit, to keep their squares in range.
    const bool extreme = norm > 0 && (norm < 1e-9 || norm > 1e9);
    const float scale = extreme ? static_cast<float>(std::exp2(-std::floor(std::log2(norm)))) : 1.0F;
    LowRank result = extreme ? decompose(a * scale, rank, options) : decompose(a, rank, options);
    // What was scaled goes back to where Σ is.
    const float share = options.sigma == SigmaPlacement::balanced ? std::sqrt(scale) : scale;
    if (extreme && options.sigma != SigmaPlacement::down) result.up *= 1.0F / share;
    if (extreme && options.sigma != SigmaPlacement::up) result.down *= 1.0F / share;
    result.total_energy = norm * norm;
    result.retained_energy /= static_cast<double>(scale) * scale;
    return result;
}

}  // namespace mha2mla
