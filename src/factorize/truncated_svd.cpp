#include <cblas.h>
#include <lapacke.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "mha2mla/error.hpp"
#include "mha2mla/factorize.hpp"

namespace mha2mla {
namespace {

/// Eigenvectors of the `rank` largest eigenvalues of a symmetric matrix, largest first.
struct Leading {
    MatrixD vectors;             // [rank, n]: one in each row
    std::vector<double> values;  // [rank]
};

/// @param gram lower triangle of [n, n]; overwritten.
Leading leading_eigenvectors(MatrixD& gram, std::int64_t rank) {
    const auto n = static_cast<lapack_int>(gram.rows());
    std::vector<double> values(static_cast<std::size_t>(n));
    // A row-major lower triangle is a column-major upper one; the result's columns are rows to us.
    const auto info = LAPACKE_dsyevd(LAPACK_COL_MAJOR, 'V', 'U', n, gram.data(), n, values.data());
    if (info != 0) {
        throw Error(ErrorCode::numeric,
                    "eigenvalue decomposition failed (LAPACK dsyevd returned " + std::to_string(info) + ")");
    }
    Leading leading;
    leading.vectors.resize(rank, n);
    for (std::int64_t i = 0; i < rank; ++i) {
        leading.vectors.row(i) = gram.row(n - 1 - i);
        leading.values.push_back(std::max(0.0, values[static_cast<std::size_t>(n - 1 - i)]));
    }
    return leading;
}

/// Makes the entry of largest magnitude of each row positive.
void fix_signs(MatrixD& rows) {
    for (Eigen::Index i = 0; i < rows.rows(); ++i) {
        Eigen::Index largest = 0;
        rows.row(i).cwiseAbs().maxCoeff(&largest);
        if (rows(i, largest) < 0) rows.row(i) *= -1.0;
    }
}

}  // namespace

LowRank truncated_svd(Eigen::Ref<const Matrix> a, std::int64_t rank, SigmaPlacement sigma) {
    const std::int64_t smaller = std::min(a.rows(), a.cols());
    if (rank < 1 || rank > smaller) {
        throw Error(ErrorCode::usage, "rank " + std::to_string(rank) + " is not possible for a matrix of " +
                                          std::to_string(a.rows()) + " x " + std::to_string(a.cols()) +
                                          "; choose from 1 to " + std::to_string(smaller));
    }
    if (!a.allFinite()) throw Error(ErrorCode::numeric, "the matrix to factorise is not finite");
    // The Gram matrix of the smaller side has A's singular values squared; in double that loses nothing that
    // float32 weights hold. B = A or Aᵀ, so that its rows are the smaller side and B = U Σ Vᵀ.
    const bool wide = a.rows() <= a.cols();
    const MatrixD b = wide ? MatrixD(a.cast<double>()) : MatrixD(a.transpose().cast<double>());
    MatrixD gram = MatrixD::Zero(smaller, smaller);
    cblas_dsyrk(CblasRowMajor, CblasLower, CblasNoTrans, static_cast<blasint>(smaller), static_cast<blasint>(b.cols()),
                1.0, b.data(), static_cast<blasint>(b.cols()), 0.0, gram.data(), static_cast<blasint>(smaller));
    LowRank result;
    result.total_energy = gram.trace();
    Leading leading = leading_eigenvectors(gram, rank);
    fix_signs(leading.vectors);
    // Uᵀ B = Σ Vᵀ: the best approximation is the projection U (Uᵀ B), whatever the size of the singular values.
    MatrixD projected(rank, b.cols());
    cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, static_cast<blasint>(rank), static_cast<blasint>(b.cols()),
                static_cast<blasint>(smaller), 1.0, leading.vectors.data(), static_cast<blasint>(smaller), b.data(),
                static_cast<blasint>(b.cols()), 0.0, projected.data(), static_cast<blasint>(b.cols()));
    for (std::int64_t i = 0; i < rank; ++i) {
        const double singular = projected.row(i).norm();
        result.retained_energy += singular * singular;
        // Moves part of Σ from the projected side to the orthonormal side.
        const bool projected_is_down = wide;
        double kept = 0.5;
        if (sigma == SigmaPlacement::up) kept = projected_is_down ? 0.0 : 1.0;
        if (sigma == SigmaPlacement::down) kept = projected_is_down ? 1.0 : 0.0;
        if (singular > 0) {
            projected.row(i) *= std::pow(singular, kept - 1.0);
            leading.vectors.row(i) *= std::pow(singular, 1.0 - kept);
        }
    }
    if (wide) {
        result.up = leading.vectors.transpose().cast<float>();
        result.down = projected.cast<float>();
    } else {
        result.up = projected.transpose().cast<float>();
        result.down = leading.vectors.cast<float>();
    }
    return result;
}

}  // namespace mha2mla
