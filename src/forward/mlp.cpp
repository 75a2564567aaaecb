#include "mlp.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

#include "../linalg/elementwise.hpp"
#include "for_each_token.hpp"

namespace mha2mla {
namespace {

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
double silu(double x) { return x * sigmoid(x); }
double silu_slope(double x) { return sigmoid(x) * (1 + x * (1 - sigmoid(x))); }

/// x · Φ(x), Φ the distribution function of the normal distribution (Hendrycks and Gimpel 2016).
double normal_share(double x) { return 0.5 * std::erfc(-x / std::numbers::sqrt2); }
double gelu(double x) { return x * normal_share(x); }
double gelu_slope(double x) {
    return normal_share(x) + x * std::exp(-0.5 * x * x) * std::numbers::inv_sqrtpi / std::numbers::sqrt2;
}

/// Its approximation by tanh(√(2/π)·(x + 0.044715·x³)).
constexpr double kTanhScale = std::numbers::sqrt2 * std::numbers::inv_sqrtpi;
constexpr double kCubic = 0.044715;
double tanh_of(double x) { return std::tanh(kTanhScale * (x + kCubic * x * x * x)); }
double gelu_tanh(double x) { return 0.5 * x * (1 + tanh_of(x)); }
double gelu_tanh_slope(double x) {
    const double t = tanh_of(x);
    return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * kTanhScale * (1 + 3 * kCubic * x * x);
}

double relu_squared(double x) { return x > 0 ? x * x : 0; }
double relu_squared_slope(double x) { return x > 0 ? 2 * x : 0; }

struct Function {
    Activation kind;
    double (*value)(double);
    double (*slope)(double);
};
constexpr auto kFunctions = std::to_array<Function>({
    {Activation::silu, silu, silu_slope},
    {Activation::gelu, gelu, gelu_slope},
    {Activation::gelu_tanh, gelu_tanh, gelu_tanh_slope},
    {Activation::relu_squared, relu_squared, relu_squared_slope},
});
constexpr bool in_order() {
    for (std::size_t i = 0; i < kFunctions.size(); ++i) {
        if (static_cast<std::size_t>(kFunctions[i].kind) != i) return false;
    }
    return true;
}
static_assert(in_order());
const Function& function_of(Activation kind) { return kFunctions[static_cast<std::size_t>(kind)]; }

/// activate_gradient() of a gated SiLU, with the vectorised exp.
void silu_gradient(const Matrix& gate, const Matrix& up, Matrix& d_gate, Matrix& d_up) {
    for_each_token(gate.rows(), [&](std::int64_t t) {
        auto dg = d_gate.row(t).array();
        dg = -gate.row(t).array();
        exp_in_place(d_gate.row(t).data(), gate.cols());
        dg = (dg + 1.0F).inverse();  // the sigmoid s; silu' = s·(1 + gate·(1 − s))
        const Eigen::Array<float, 1, Eigen::Dynamic> sigmoid = dg;
        const auto g = gate.row(t).array();
        dg = d_up.row(t).array() * up.row(t).array() * sigmoid * (1.0F + g * (1.0F - sigmoid));
        d_up.row(t).array() *= g * sigmoid;
    });
}

}  // namespace

double activation(Activation kind, double x) { return function_of(kind).value(x); }
double activation_slope(Activation kind, double x) { return function_of(kind).slope(x); }

void activate(const MlpRule& rule, std::int64_t tokens, std::int64_t width, float* gate, float* up) {
    const auto value = function_of(rule.activation).value;
    for_each_token(tokens, [&](std::int64_t token) {
        float* g = rule.gated ? gate + token * width : nullptr;
        float* u = up + token * width;
        if (rule.gated && rule.activation == Activation::silu) return silu_multiply(g, u, width);
        for (std::int64_t i = 0; i < width; ++i) {
            if (rule.gated) {
                g[i] = static_cast<float>(value(static_cast<double>(g[i]))) * u[i];
            } else {
                u[i] = static_cast<float>(value(static_cast<double>(u[i])));
            }
        }
    });
}

void activate_gradient(const MlpRule& rule, const Matrix& gate, const Matrix& up, Matrix& d_gate, Matrix& d_up) {
    if (rule.gated) d_gate.resize(gate.rows(), gate.cols());
    if (rule.gated && rule.activation == Activation::silu) return silu_gradient(gate, up, d_gate, d_up);
    const Function& act = function_of(rule.activation);
    for_each_token(up.rows(), [&](std::int64_t t) {
        for (std::int64_t i = 0; i < up.cols(); ++i) {
            const auto d = static_cast<double>(d_up(t, i));
            if (rule.gated) {
                const auto g = static_cast<double>(gate(t, i));
                d_gate(t, i) = static_cast<float>(d * static_cast<double>(up(t, i)) * act.slope(g));
                d_up(t, i) = static_cast<float>(d * act.value(g));
            } else {
                d_up(t, i) = static_cast<float>(d * act.slope(static_cast<double>(up(t, i))));
            }
        }
    });
}

void mlp(const MlpRule& rule, const MlpView& view, const Matrix& x, MlpWorkspace& work, Matrix& out) {
    const std::int64_t tokens = x.rows();
    const std::int64_t width = view.up.out_features();
    work.up.resize(std::min(tokens, kMlpTokens), width);
    if (rule.gated) work.gate.resize(std::min(tokens, kMlpTokens), width);
    out.resize(tokens, x.cols());
    for (std::int64_t first = 0; first < tokens; first += kMlpTokens) {
        const std::int64_t count = std::min(kMlpTokens, tokens - first);
        const float* rows = x.data() + first * x.cols();
        const std::array<LinearProduct, 2> products = {{{&view.up, work.up.data()}, {&view.gate, work.gate.data()}}};
        linear(std::span(products).first(rule.gated ? 2 : 1), count, rows, work.precision);
        activate(rule, count, width, work.gate.data(), work.up.data());
        linear(view.down, count, (rule.gated ? work.gate : work.up).data(), out.data() + first * out.cols(),
               work.precision);
    }
}

void mlp_keeping(const MlpRule& rule, const MlpView& view, const Matrix& x, MlpActivations& at, Matrix& out) {
    if (rule.gated) project(view.gate, x, at.gate, ProductPrecision::split);
    project(view.up, x, at.up, ProductPrecision::split);
    Matrix gate = at.gate;
    Matrix up = rule.gated ? Matrix() : at.up;
    activate(rule, x.rows(), at.up.cols(), gate.data(), rule.gated ? at.up.data() : up.data());
    project(view.down, rule.gated ? gate : up, out, ProductPrecision::split);
}

void mlp_gradient(const MlpRule& rule, const MlpView& view, const Matrix& x, const MlpActivations& at,
                  const Matrix& d_out, Matrix& dx, const MlpGradient& to) {
    const std::int64_t tokens = x.rows();
    if (to.down.weight != nullptr || to.down.bias != nullptr) {
        Matrix gate = at.gate, up = at.up;
        activate(rule, tokens, up.cols(), gate.data(), up.data());
        project_gradient(rule.gated ? gate : up, d_out, to.down);
    }
    Matrix d_up(tokens, at.up.cols()), d_gate;
    linear_back(view.down, tokens, d_out.data(), false, d_up.data());
    activate_gradient(rule, at.gate, at.up, d_gate, d_up);
    dx.resize(tokens, x.cols());
    if (rule.gated) {
        linear_back(view.gate, tokens, d_gate.data(), false, dx.data());
        project_gradient(x, d_gate, to.gate);
    }
    linear_back(view.up, tokens, d_up.data(), rule.gated, dx.data());
    project_gradient(x, d_up, to.up);
}

}  // namespace mha2mla
