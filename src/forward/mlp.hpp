#pragma once
#include "mha2mla/architecture.hpp"
#include "mha2mla/matrix.hpp"
#include "mha2mla/model.hpp"
#include "project.hpp"

namespace mha2mla {

/// act(x) and its derivative.
[[nodiscard]] double activation(Activation kind, double x);
[[nodiscard]] double activation_slope(Activation kind, double x);

/// What stands before the MLP's last projection: gate ← act(gate) · up or, where the rule is not gated,
/// up ← act(up). Both are [tokens, width], contiguous; `gate` is not looked at where the rule is not gated.
void activate(const MlpRule& rule, std::int64_t tokens, std::int64_t width, float* gate, float* up);

/// The derivatives by gate and up, from that by activate()'s result.
/// @param gate, up what activate() read.
/// @param d_up given the derivative by the result, becomes that by up. @param d_gate set; unused if not gated.
void activate_gradient(const MlpRule& rule, const Matrix& gate, const Matrix& up, Matrix& d_gate, Matrix& d_up);

/// Of a layer whose MLP is dense.
[[nodiscard]] inline MlpView mlp_of(const LayerView& layer) { return {layer.gate, layer.up, layer.down}; }

/// Buffers of mlp(), which holds kMlpTokens tokens of the wide rows at once.
struct MlpWorkspace {
    Matrix gate, up;
    ProductPrecision precision = ProductPrecision::full;  // of products with weights
};
inline constexpr std::int64_t kMlpTokens = 2048;

/// down(act(gate(x)) · up(x)), or down(act(up(x))).
/// @param x, out [tokens, hidden]
void mlp(const MlpRule& rule, const MlpView& view, const Matrix& x, MlpWorkspace& work, Matrix& out);

/// Derivatives by the three weights; null members: not computed.
struct MlpGradient {
    LinearGradient gate, up, down;
};
/// What mlp_keeping() leaves for the gradient.
struct MlpActivations {
    Matrix gate, up;  // before the activation, [tokens, width]
};
/// mlp() on all tokens at once, in ProductPrecision::split.
void mlp_keeping(const MlpRule& rule, const MlpView& view, const Matrix& x, MlpActivations& at, Matrix& out);
/// @param x what mlp_keeping() read. @param d_out [tokens, hidden]. @param dx set to the derivative by x.
void mlp_gradient(const MlpRule& rule, const MlpView& view, const Matrix& x, const MlpActivations& at,
                  const Matrix& d_out, Matrix& dx, const MlpGradient& to = {});

}  // namespace mha2mla
