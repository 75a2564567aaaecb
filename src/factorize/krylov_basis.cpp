#include <lapacke.h>

#include <Eigen/Eigenvalues>
#include <algorithm>
#include <limits>
#include <random>

#include "../linalg/blas.hpp"
#include "../linalg/symmetric_eigen.hpp"
#include "mha2mla/error.hpp"
#include "singular_basis.hpp"

namespace mha2mla {
namespace {

/// The width of a block of the iteration: slightly more than the rank, so that the last wanted vectors converge as
/// well.
std::int64_t block_width(std::int64_t rank) { return rank + std::max<std::int64_t>(8, rank / 8); }

/// Maps rows over the smaller side of A to rows over the larger side and back.
Matrix to_larger(const Matrix& rows, const MatrixRef& a) {
    return a.rows() <= a.cols() ? project_left<float>(rows, a) : Matrix(project_right<float>(a, rows).transpose());
}
Matrix to_smaller(const Matrix& rows, const MatrixRef& a) {
    return a.rows() <= a.cols() ? Matrix(project_right<float>(a, rows).transpose()) : project_left<float>(rows, a);
}

/// Makes the rows orthonormal (Householder).
void orthonormalise(Matrix& rows) {
    const auto n = static_cast<lapack_int>(rows.cols());
    const auto count = static_cast<lapack_int>(rows.rows());
    std::vector<float> tau(static_cast<std::size_t>(count));
    // The rows of a row-major matrix are the columns of a column-major one.
    if (LAPACKE_sgeqrf(LAPACK_COL_MAJOR, n, count, rows.data(), n, tau.data()) != 0 ||
        LAPACKE_sorgqr(LAPACK_COL_MAJOR, n, count, count, rows.data(), n, tau.data()) != 0) {
        throw Error(ErrorCode::numeric, "QR decomposition failed");
    }
}

void remove_components(Matrix& rows, const Matrix& basis) {
    for (int pass = 0; pass < 2; ++pass) {  // the second pass removes the rounding errors of the first
        Matrix overlap(rows.rows(), basis.rows());
        gemm(CblasNoTrans, CblasTrans, rows.rows(), basis.rows(), rows.cols(), 1.0F, rows.data(), rows.cols(),
             basis.data(), basis.cols(), 0.0F, overlap.data(), overlap.cols());
        gemm(CblasNoTrans, CblasNoTrans, rows.rows(), rows.cols(), basis.rows(), -1.0F, overlap.data(), overlap.cols(),
             basis.data(), basis.cols(), 1.0F, rows.data(), rows.cols());
    }
}

void append_rows(Matrix& matrix, const Matrix& rows) {
    matrix.conservativeResize(matrix.rows() + rows.rows(), rows.cols());
    matrix.bottomRows(rows.rows()) = rows;
}

}  // namespace

bool suits_krylov(std::int64_t rows, std::int64_t columns, std::int64_t rank) {
    return 16 * block_width(rank) <= std::min(rows, columns);
}

/// Musco and Musco 2015 (randomised block Krylov). After each step the best approximation in the whole Krylov space is
/// known exactly; the gains of the steps decrease geometrically, and the sum of all further gains is the excess.
SingularBasis<float> krylov_basis(const MatrixRef& a, std::int64_t rank, double max_excess) {
    const std::int64_t n = std::min(a.rows(), a.cols());
    const std::int64_t width = std::min(block_width(rank), n);
    std::mt19937 generator(0);  // any start works; a fixed seed makes results repeatable
    Matrix block = Matrix::NullaryExpr(width, n, [&] { return static_cast<float>(generator()) * 0x1p-32F - 0.5F; });
    const double total = squared_norm(a);
    Matrix basis(0, n), image(0, std::max(a.rows(), a.cols()));
    double retained = 0, gain = 0;
    SingularBasis<float> result;
    result.excess = std::numeric_limits<double>::infinity();
    while (2 * (basis.rows() + width) <= n) {
        remove_components(block, basis);
        orthonormalise(block);
        append_rows(basis, block);
        const Matrix block_image = to_larger(block, a);
        append_rows(image, block_image);
        block = to_smaller(block_image, a);

        // Rayleigh-Ritz: the energy of A in the space, and its best `rank` directions.
        const MatrixD image_d = image.cast<double>();
        const std::int64_t size = basis.rows();
        std::vector<double> energy(static_cast<std::size_t>(size * size));
        syrk(CblasNoTrans, size, image_d.cols(), 1.0, image_d.data(), image_d.cols(), 0.0, energy.data(), size);
        const auto ritz = leading_eigenvectors(energy, size, rank);
        double now = 0;
        for (std::int64_t i = 0; i < rank; ++i) now += ritz.values[static_cast<std::size_t>(i)];
        const double gain_before = gain;
        gain = std::max(0.0, now - retained);
        retained = now;
        const double ratio = gain_before > 0 ? std::min(gain / gain_before, 0.95) : 0.95;
        const double missing = gain * ratio / (1 - ratio);
        const double tail = std::max(total - retained, 1e-14 * total);
        result.excess = missing < tail ? missing / (tail - missing) : std::numeric_limits<double>::infinity();
        if (basis.rows() > 2 * width && result.excess <= max_excess) {
            result.vectors = ritz.vectors.cast<float>() * basis;
            return result;
        }
    }
    return result;
}

}  // namespace mha2mla
