#include <cmath>

#include "for_each_token.hpp"
#include "mixture.hpp"

namespace mha2mla {
namespace {

/// Derivatives by the weights of one token's experts become those by the router's logits.
/// @param scores of all experts. @param weights 0: not chosen.
void weights_to_logits(const MixtureRule& rule, std::span<const float> scores, std::span<const float> weights,
                       std::span<float> d) {
    double sum = 1e-20, along = 0;
    for (std::size_t e = 0; e < d.size(); ++e) {
        if (weights[e] == 0) continue;
        sum += static_cast<double>(scores[e]);
        along += static_cast<double>(d[e]) * static_cast<double>(scores[e]);
    }
    const double factor = static_cast<double>(rule.scale) / (rule.normalised ? sum : 1.0);
    const double mean = rule.normalised ? along / sum : 0;
    double through = 0;  // the softmax
    for (std::size_t e = 0; e < d.size(); ++e) {
        d[e] = weights[e] == 0 ? 0 : static_cast<float>(factor * (static_cast<double>(d[e]) - mean));
        through += static_cast<double>(d[e]) * static_cast<double>(scores[e]);
    }
    for (std::size_t e = 0; e < d.size(); ++e) {
        const auto score = static_cast<double>(scores[e]), by_score = static_cast<double>(d[e]);
        d[e] = static_cast<float>(rule.score == ExpertScore::softmax ? score * (by_score - through)
                                                                     : score * (1 - score) * by_score);
    }
}

/// Sets dx to what comes through the shared expert.
void shared_gradient(const MlpRule& rule, const MixtureView& view, const Matrix& x, const Matrix& d_out, Matrix& dx,
                     const MixtureGradient& to) {
    if (rule.mixture.shared_width == 0) {
        dx.setZero(x.rows(), x.cols());
        return;
    }
    MlpActivations at;
    Matrix output;
    mlp_keeping(rule, view.shared, x, at, output);
    if (!rule.mixture.shared_gate) return mlp_gradient(rule, view.shared, x, at, d_out, dx, to.shared);
    Matrix gate, d_output = d_out;
    project(view.shared_gate, x, gate);
    for_each_token(x.rows(), [&](std::int64_t t) {
        const float share = sigmoid(gate(t, 0));
        gate(t, 0) = share * (1.0F - share) * d_out.row(t).dot(output.row(t));
        d_output.row(t) *= share;
    });
    mlp_gradient(rule, view.shared, x, at, d_output, dx, to.shared);
    project_gradient(x, gate, to.shared_gate);
    linear_back(view.shared_gate, x.rows(), gate.data(), true, dx.data());
}

}  // namespace

void mixture_gradient(const MlpRule& rule, const MixtureView& view, const Matrix& x, const Matrix& d_out, Matrix& dx,
                      const MixtureGradient& to) {
    MixtureWorkspace work;
    choose_experts(rule.mixture, view, x, work);
    shared_gradient(rule, view, x, d_out, dx, to);
    Matrix d_logits = Matrix::Zero(work.scores.rows(), work.scores.cols());  // at first by the weights
    MlpActivations at;
    Matrix d_output, d_rows;
    for (std::size_t e = 0; e < view.experts.size(); ++e) {
        const std::vector<RoutedToken>& tokens = work.routed[e];
        if (tokens.empty()) continue;
        gather_tokens(x, tokens, work.rows);
        gather_tokens(d_out, tokens, d_output);
        mlp_keeping(rule, view.experts[e], work.rows, at, work.output);
        for (Eigen::Index i = 0; i < d_output.rows(); ++i) {
            const auto [token, weight] = tokens[static_cast<std::size_t>(i)];
            d_logits(token, static_cast<Eigen::Index>(e)) = work.output.row(i).dot(d_output.row(i));
            d_output.row(i) *= weight;
        }
        mlp_gradient(rule, view.experts[e], work.rows, at, d_output, d_rows,
                     to.experts.empty() ? MlpGradient{} : to.experts[e]);
        for (Eigen::Index i = 0; i < d_rows.rows(); ++i) {
            dx.row(tokens[static_cast<std::size_t>(i)].token) += d_rows.row(i);
        }
    }
    const auto row = [](auto& of, std::int64_t t) {
        return std::span(of.row(t).data(), static_cast<std::size_t>(of.cols()));
    };
    for_each_token(x.rows(), [&](std::int64_t t) {
        weights_to_logits(rule.mixture, row(work.scores, t), row(work.weights, t), row(d_logits, t));
    });
    project_gradient(x, d_logits, to.router);
    linear_back(view.router, x.rows(), d_logits.data(), true, dx.data());
}

}  // namespace mha2mla
