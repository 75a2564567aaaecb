#pragma once
/// The dense types of the whole library. A matrix is stored as in the checkpoint: [out_features, in_features],
/// row-major.

#include <Eigen/Core>

namespace mha2mla {

using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Vector = Eigen::VectorXf;
using MatrixD = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

}  // namespace mha2mla
