#include <algorithm>
#include <cmath>
#include <limits>
#include <span>

#include "../linalg/dominant.hpp"
#include "../linalg/symmetric_eigen.hpp"
#include "singular_basis.hpp"

namespace mha2mla {
namespace {

/// The assumed rounding errors: entries of a symmetric perturbation in units of float32 rounding. Those of the
/// eigenvalue decomposition are proportional to the norm of the matrix over √n, those of the Gram matrix to its mean
/// diagonal. The constants are from measurements (docs/method.md).
constexpr double kDecompositionRounding = 4.0;
constexpr double kGramRounding = 2.0;

/// Energy that a perturbation with entries of size `entry` moves from the first `kept` eigenvectors to the others,
/// relative to the energy of the others (second-order perturbation theory; a pair that is closer than the perturbation
/// may rotate freely).
/// @param values in descending order.
double predict_excess(std::span<const float> values, std::size_t kept, double entry, double norm_of_error) {
    double moved = 0;
    double tail = 0;
    for (std::size_t j = kept; j < values.size(); ++j) {
        tail += std::max(0.0, static_cast<double>(values[j]) - norm_of_error);
        for (std::size_t i = 0; i < kept; ++i) {
            const double gap = static_cast<double>(values[i]) - static_cast<double>(values[j]);
            moved += std::min(gap, entry * entry / std::max(gap, 1e-300));
        }
    }
    if (kept == values.size()) return 0;
    return tail > 0 ? moved / tail : std::numeric_limits<double>::infinity();
}

}  // namespace

SingularBasis<double> double_basis(const MatrixRef& a, std::int64_t rank) {
    auto gram = gram_of_smaller_side<double>(a);
    return {leading_eigenvectors(gram, std::min(a.rows(), a.cols()), rank).vectors, 0};
}

SingularBasis<float> single_basis(const MatrixRef& a, std::int64_t rank) {
    const std::int64_t n = std::min(a.rows(), a.cols());
    auto gram = gram_of_smaller_side<float>(a);
    double trace = 0;
    for (std::int64_t i = 0; i < n; ++i) trace += gram[static_cast<std::size_t>(i * n + i)];
    const double rest = 1.0 - static_cast<double>(rank) / static_cast<double>(n);
    const DominantPart dominant = deflate_dominant(gram, n, rank, 1e-8 * trace * rest * rest);
    const auto outliers = static_cast<std::int64_t>(dominant.values.size());
    const auto leading = leading_eigenvectors(gram, n, rank - outliers);

    SingularBasis<float> basis;
    basis.vectors.resize(rank, n);
    basis.vectors.topRows(outliers) = dominant.vectors;
    auto others = basis.vectors.bottomRows(rank - outliers);
    others = leading.vectors;
    others -= (others * dominant.vectors.transpose()).eval() * dominant.vectors;

    // The last eigenvalues are those of the outliers, made negative.
    const std::span<const float> values(leading.values.data(), static_cast<std::size_t>(n - outliers));
    const double norm = std::abs(static_cast<double>(leading.values.front()));
    const double unit = std::numeric_limits<float>::epsilon() / 2;
    const double root_n = std::sqrt(static_cast<double>(n));
    const double entry =
        unit * std::hypot(kDecompositionRounding * norm / root_n, kGramRounding * trace / static_cast<double>(n));
    const auto kept = static_cast<std::size_t>(rank - outliers);
    basis.excess = predict_excess(values, kept, entry, 2 * entry * root_n);
    double tail = 0;
    for (std::size_t j = kept; j < values.size(); ++j) tail += static_cast<double>(values[j]);
    if (dominant.coupling > 0) basis.excess += dominant.coupling / tail;
    return basis;
}

}  // namespace mha2mla
