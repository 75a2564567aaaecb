#include "block.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "../forward/layer.hpp"
#include "../forward/linear.hpp"
#include "../linalg/elementwise.hpp"
#include "../support/parallel.hpp"

namespace mha2mla {
namespace {

constexpr std::int64_t kTokenBlock = 64;

template <typename Body>
void for_each_token(std::int64_t tokens, const Body& body) {
    parallel_for((tokens + kTokenBlock - 1) / kTokenBlock, [&](std::int64_t block, std::vector<float>&) {
        const std::int64_t end = std::min(tokens, (block + 1) * kTokenBlock);
        for (std::int64_t token = block * kTokenBlock; token < end; ++token) body(token);
    });
}

Vector floats(const TensorView& tensor) {
    Vector result(tensor.shape[0]);
    to_float(tensor, 0, {result.data(), static_cast<std::size_t>(result.size())});
    return result;
}

void apply(const LinearView& view, const Matrix& x, Matrix& y) {
    y.resize(x.rows(), view.out_features());
    linear(view, x.rows(), x.data(), y.data());
}

/// Adds to dx the derivative by x of rms_norm(), from that by its output.
void add_norm_gradient(const TensorView& weight, double eps, const Matrix& x, const Matrix& d_normed, Matrix& dx) {
    const Vector scale = floats(weight);
    for_each_token(x.rows(), [&](std::int64_t t) {
        const auto row = x.row(t).cast<double>();
        const Eigen::RowVectorXd d = d_normed.row(t).cwiseProduct(scale.transpose()).cast<double>();
        const auto width = static_cast<double>(x.cols());
        const double factor = 1 / std::sqrt(row.squaredNorm() / width + eps);
        dx.row(t) += (factor * d - (factor * factor * factor * row.dot(d) / width) * row).cast<float>();
    });
}

/// From the derivative by silu(gate)·up in `d_up` those by gate and up.
void gated_gradient(const Matrix& gate, const Matrix& up, Matrix& d_gate, Matrix& d_up) {
    d_gate.resize(gate.rows(), gate.cols());
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

/// Logits become probabilities. @return the log of what their exponentials sum up to.
double softmax(float* logits, std::int64_t count) {
    float maximum = -std::numeric_limits<float>::infinity();
    float sum = 0;
    softmax_piece(logits, count, maximum, sum);
    Eigen::Map<Eigen::ArrayXf>(logits, count) /= sum;
    return static_cast<double>(maximum) + std::log(static_cast<double>(sum));
}

}  // namespace

void run_block(const Model& model, std::int64_t layer, const LatentLayer& latent, const RotaryTable& rotary,
               std::int64_t seq_len, BlockActivations& at) {
    const LayerView& view = model.layers[static_cast<std::size_t>(layer)];
    const double eps = model.config.rms_norm_eps;
    rms_norm(*view.input_layernorm, eps, at.input, at.normed);
    run_latent(latent, rotary, seq_len, at.normed, at.attention);
    at.middle = at.input + at.attention.output;
    if (const TensorView* bias = view.attention->o.bias) at.middle.rowwise() += floats(*bias).transpose();
    rms_norm(*view.post_attention_layernorm, eps, at.middle, at.mlp_normed);
    apply(view.gate, at.mlp_normed, at.gate);
    apply(view.up, at.mlp_normed, at.up);
    Matrix product = at.gate;
    for_each_token(product.rows(),
                   [&](std::int64_t t) { silu_multiply(product.row(t).data(), at.up.row(t).data(), product.cols()); });
    apply(view.down, product, at.output);
    at.output += at.middle;
}

void differentiate_block(const Model& model, std::int64_t layer, const LatentLayer& latent, const RotaryTable& rotary,
                         std::int64_t seq_len, const BlockActivations& at, Matrix& d_hidden, LatentWeights& to) {
    const LayerView& view = model.layers[static_cast<std::size_t>(layer)];
    const std::int64_t tokens = d_hidden.rows();
    const double eps = model.config.rms_norm_eps;
    Matrix d_up(tokens, at.up.cols()), d_gate, d_normed(tokens, d_hidden.cols());
    linear_back(view.down, tokens, d_hidden.data(), false, d_up.data());
    gated_gradient(at.gate, at.up, d_gate, d_up);
    linear_back(view.gate, tokens, d_gate.data(), false, d_normed.data());
    linear_back(view.up, tokens, d_up.data(), true, d_normed.data());
    add_norm_gradient(*view.post_attention_layernorm, eps, at.middle, d_normed, d_hidden);
    differentiate_latent(latent, rotary, seq_len, at.normed, at.attention, d_hidden, to, &d_normed);
    add_norm_gradient(*view.input_layernorm, eps, at.input, d_normed, d_hidden);
}

double distribution_loss(const Model& model, const Matrix& output, const Matrix& wanted, Matrix& d_output) {
    const LinearView head{model.lm_head, nullptr};
    const double eps = model.config.rms_norm_eps;
    const std::int64_t vocab = head.out_features();
    const auto share = static_cast<float>(1.0 / static_cast<double>(output.rows()));
    Matrix normed, logits, wanted_normed, wanted_logits;
    Matrix d_normed(output.rows(), output.cols());
    Vector losses(output.rows());
    for (std::int64_t first = 0; first < output.rows(); first += kHeadTokens) {
        const std::int64_t count = std::min(kHeadTokens, output.rows() - first);
        rms_norm(*model.norm, eps, output.middleRows(first, count), normed);
        rms_norm(*model.norm, eps, wanted.middleRows(first, count), wanted_normed);
        apply(head, normed, logits);
        apply(head, wanted_normed, wanted_logits);
        for_each_token(count, [&](std::int64_t t) {
            auto ours = logits.row(t).array();
            auto theirs = wanted_logits.row(t).array();
            const Eigen::Array<float, 1, Eigen::Dynamic> apart = theirs - ours;
            const double sums = softmax(logits.row(t).data(), vocab) - softmax(wanted_logits.row(t).data(), vocab);
            losses(first + t) = static_cast<float>((theirs * apart).cast<double>().sum() + sums);
            ours = (ours - theirs) * share;
        });
        linear_back(head, count, logits.data(), false, d_normed.row(first).data());
    }
    d_output.setZero(output.rows(), output.cols());
    add_norm_gradient(*model.norm, eps, output, d_normed, d_output);
    return losses.cast<double>().mean();
}

}  // namespace mha2mla
