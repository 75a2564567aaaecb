#pragma once
#include "mha2mla/matrix.hpp"
#include "mha2mla/model.hpp"

namespace mha2mla {

/// The view's norm over each group of columns as wide as the weight's last dimension: over a whole row, or over each
/// head of it. A weight [groups, width] has its own row for each group, a weight [width] serves all.
/// @param x [tokens, groups * width]. @param out the same; may be x.
void norm(const NormView& view, Eigen::Ref<const Matrix> x, Matrix& out);

/// Where derivatives by a norm's weight and bias are added; null: not computed.
struct NormGradient {
    float* weight = nullptr;
    float* bias = nullptr;
};

/// Adds to dx the derivative by x of norm(), and to `to` those by its weights, from that by its output. Results do not
/// depend on the threads.
/// @param x what norm() read. @param d_out, dx [tokens, groups * width]
void norm_gradient(const NormView& view, const Matrix& x, const Matrix& d_out, Matrix& dx, const NormGradient& to = {});

/// RMSNorm over whole rows, with a weight of 1.
void rms_norm(double eps, const Matrix& x, Matrix& out);
/// Adds the derivative by x to dx.
void rms_norm_gradient(double eps, const Matrix& x, const Matrix& d_out, Matrix& dx);

}  // namespace mha2mla
