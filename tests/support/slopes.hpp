#pragma once
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "mha2mla/checkpoint.hpp"
#include "mha2mla/matrix.hpp"
#include "normal_matrix.hpp"

namespace mha2mla::test {

/// A tensor whose numbers lie in a matrix, which must outlive it.
inline TensorView tensor_of(const Matrix& values, Shape shape) {
    TensorView view;
    view.dtype = Dtype::f32;
    view.shape = std::move(shape);
    view.data = std::as_bytes(std::span(values.data(), static_cast<std::size_t>(values.size())));
    return view;
}

/// Compares each entry of a gradient with the central difference of `loss`, a function in double of `at`.
template <typename Loss>
void expect_slopes(const std::string& what, MatrixD& at, const float* gradient, const Loss& loss) {
    MatrixD slopes(at.rows(), at.cols());
    constexpr double kStep = 1e-5;
    for (Eigen::Index i = 0; i < at.size(); ++i) {
        const double before = at.data()[i];
        at.data()[i] = before + kStep;
        const double above = loss();
        at.data()[i] = before - kStep;
        const double below = loss();
        at.data()[i] = before;
        slopes.data()[i] = (above - below) / (2 * kStep);
    }
    const Eigen::Map<const Matrix> ours(gradient, at.rows(), at.cols());
    EXPECT_GT(slopes.norm(), 1e-3) << what << ": nothing to compare";
    EXPECT_LT((ours.cast<double>() - slopes).norm(), 2e-5 * slopes.norm() + 1e-8) << what;
}

inline void expect_equal(const std::string& what, const Matrix& ours, const MatrixD& expected) {
    ASSERT_EQ(ours.rows(), expected.rows()) << what;
    ASSERT_EQ(ours.cols(), expected.cols()) << what;
    EXPECT_LT((ours.cast<double>() - expected).norm(), 3e-6 * expected.norm()) << what;
}

}  // namespace mha2mla::test
