#pragma once
#include <vector>

#include "linear.hpp"
#include "mha2mla/matrix.hpp"

namespace mha2mla {

/// y = x·Wᵀ + b by linear().
void project(const LinearView& view, const Matrix& x, Matrix& y, ProductPrecision precision = ProductPrecision::full);
/// Several maps of the same x; for few tokens all at once.
struct Projected {
    const LinearView& view;
    Matrix& y;
};
void project(const Matrix& x, const std::vector<Projected>& projections);

/// Where derivatives by the weight and the bias of a linear map are added; null: not computed.
struct LinearGradient {
    float* weight = nullptr;
    float* bias = nullptr;
};

/// Adds to `to` the derivatives of project() by its weights, from that by y. Results do not depend on the threads.
/// linear_back() gives the derivative by x.
void project_gradient(const Matrix& x, const Matrix& dy, const LinearGradient& to);

// The same for weights that are trained, and so lie in memory as float32.

/// y = x·Wᵀ + b. @param bias empty: none.
void project(const Matrix& x, const Matrix& w, const Vector& bias, Matrix& y);
/// x·W, added to what is there if `add`.
void back_project(const Matrix& x, const Matrix& w, bool add, Matrix& y);
/// to = aᵀ·b: the derivative by a weight [columns of a, columns of b].
void weight_gradient(const Matrix& a, const Matrix& b, Matrix& to);

}  // namespace mha2mla
