#include "dominant.hpp"

#include <Eigen/Eigenvalues>
#include <Eigen/QR>
#include <algorithm>
#include <cmath>
#include <random>

#include "../support/parallel.hpp"
#include "blas.hpp"
#include "mha2mla/matrix.hpp"

namespace mha2mla {
namespace {

constexpr std::int64_t kBlock = 16;
constexpr int kSteps = 4;
constexpr std::int64_t kTile = 256;

/// x · gram for a symmetric matrix of which the upper triangle is filled, a tile of columns at a time.
MatrixD times_gram(const MatrixD& x, const std::vector<float>& gram) {
    const Matrix in = x.cast<float>();
    const std::int64_t n = x.cols();
    Matrix out(x.rows(), n);
    parallel_for((n + kTile - 1) / kTile, [&](std::int64_t tile, std::vector<float>& square) {
        const std::int64_t column = tile * kTile;
        const std::int64_t columns = std::min(kTile, n - column);
        const float* diagonal = gram.data() + column * n + column;
        square.resize(static_cast<std::size_t>(columns * columns));
        for (std::int64_t i = 0; i < columns; ++i) {
            for (std::int64_t j = i; j < columns; ++j) {
                square[static_cast<std::size_t>(i * columns + j)] = square[static_cast<std::size_t>(j * columns + i)] =
                    diagonal[i * n + j];
            }
        }
        const auto add = [&](CBLAS_TRANSPOSE trans, std::int64_t first, std::int64_t depth, const float* b,
                             std::int64_t stride, float beta) {
            gemm(CblasNoTrans, trans, in.rows(), columns, depth, 1.0F, in.data() + first, n, b, stride, beta,
                 out.data() + column, n);
        };
        add(CblasNoTrans, column, columns, square.data(), columns, 0.0F);
        if (column > 0) add(CblasNoTrans, 0, column, gram.data() + column, n, 1.0F);
        if (const std::int64_t end = column + columns; end < n)
            add(CblasTrans, end, n - end, diagonal + columns, n, 1.0F);
    });
    return out.cast<double>();
}

/// An orthonormal basis of the rows.
MatrixD orthonormal(const MatrixD& rows) {
    const Eigen::HouseholderQR<Eigen::MatrixXd> qr(rows.transpose());
    return (qr.householderQ() * Eigen::MatrixXd::Identity(rows.cols(), rows.rows())).transpose();
}

}  // namespace

DominantPart deflate_dominant(std::vector<float>& gram, std::int64_t n, std::int64_t most, double tolerance) {
    const std::int64_t width = std::min({kBlock, most, n});
    std::mt19937 generator(0);  // any start works; a fixed seed makes results repeatable
    MatrixD basis = MatrixD::NullaryExpr(width, n, [&] { return static_cast<double>(generator()) / 0x1p32 - 0.5; });
    for (int step = 0; step < kSteps; ++step) basis = times_gram(orthonormal(basis), gram);
    basis = orthonormal(basis);
    const MatrixD image = times_gram(basis, gram);
    const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> ritz(basis * image.transpose());
    const Eigen::MatrixXd rotation = ritz.eigenvectors().transpose().colwise().reverse();
    const Eigen::VectorXd values = ritz.eigenvalues().reverse();
    const MatrixD vectors = rotation * basis;
    const MatrixD residuals = rotation * image - values.asDiagonal() * vectors;
    DominantPart part;
    std::int64_t count = 0;
    for (; count < width && values[count] > 0; ++count) {
        const double coupling = residuals.row(count).squaredNorm() / values[count];
        if (part.coupling + coupling > tolerance) break;
        part.coupling += coupling;
        part.values.push_back(values[count]);
    }
    part.vectors = vectors.topRows(count).cast<float>();
    if (count == 0) return part;
    // Replaces each eigenvalue θ by minus the mean of the other eigenvalues: gram − Uᵀ(Θ + mean)U.
    double trace = 0;
    for (std::int64_t i = 0; i < n; ++i) trace += gram[static_cast<std::size_t>(i * n + i)];
    const double mean = std::max(0.0, trace - values.head(count).sum()) / static_cast<double>(n);
    Matrix scaled = part.vectors;
    for (std::int64_t i = 0; i < count; ++i) scaled.row(i) *= static_cast<float>(std::sqrt(values[i] + mean));
    syrk(CblasTrans, n, count, -1.0F, scaled.data(), n, 1.0F, gram.data(), n);
    return part;
}

}  // namespace mha2mla
