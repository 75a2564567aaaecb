#pragma once
#include <cmath>

#include "mha2mla/matrix.hpp"

namespace mha2mla {

/// log Σ exp(row), computed in double.
inline double log_sum_exp(const Eigen::Ref<const Matrix>& row) {
    const double top = row.maxCoeff();
    return top + std::log((row.cast<double>().array() - top).exp().sum());
}

}  // namespace mha2mla
