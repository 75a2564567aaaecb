#include "whitened.hpp"

#include <cmath>

#include "../linalg/blas.hpp"
#include "../linalg/symmetric_eigen.hpp"
#include "factorizations.hpp"

namespace mha2mla {

KvFactors factorize_whitened(const Matrix& kv, std::int64_t nope_rows, const LatentWidths& widths,
                             const SvdOptions& options, const MatrixD& moment, double key_weight) {
    const std::int64_t n = moment.rows();
    std::vector<double> matrix(moment.data(), moment.data() + moment.size());
    const double ridge = std::max(kMomentRidge * moment.trace() / static_cast<double>(n), 1e-30);
    for (std::int64_t i = 0; i < n; ++i) matrix[static_cast<std::size_t>(i * n + i)] += ridge;
    const auto eigen = leading_eigenvectors(matrix, n, n);
    const Eigen::VectorXd root = Eigen::Map<const Eigen::VectorXd>(eigen.values.data(), n).cwiseMax(ridge).cwiseSqrt();
    // The eigenvectors themselves serve as well as the symmetric root: the SVD does not see a rotation.
    Matrix weighted = project_right<float>(kv, (root.asDiagonal() * eigen.vectors).cast<float>());
    weighted.topRows(nope_rows) *= static_cast<float>(key_weight);
    KvFactors factors = factorize_joint(weighted, nope_rows, widths, options);
    const MatrixD inverse = root.cwiseInverse().asDiagonal() * eigen.vectors;
    const MatrixD down = factors.down_k.cast<double>();
    MatrixD unwhitened(down.rows(), n);
    gemm(CblasNoTrans, CblasNoTrans, down.rows(), n, n, 1.0, down.data(), n, inverse.data(), n, 0.0, unwhitened.data(),
         n);
    factors.down_k = unwhitened.cast<float>();
    factors.up_k /= static_cast<float>(key_weight);
    return factors;
}

}  // namespace mha2mla
