#include "mixture.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "for_each_token.hpp"
#include "softmax.hpp"

namespace mha2mla {
namespace {

void logits_to_scores(ExpertScore kind, std::span<float> row) {
    if (kind == ExpertScore::softmax) {
        softmax(row.data(), std::ssize(row));
    } else {
        std::transform(row.begin(), row.end(), row.begin(), sigmoid);
    }
}

/// The indices of the `count` largest values; of equal ones the first.
std::vector<std::size_t> largest(std::span<const float> values, std::int64_t count) {
    std::vector<std::size_t> order(values.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    const auto before = [&](std::size_t a, std::size_t b) {
        return values[a] != values[b] ? values[a] > values[b] : a < b;
    };
    std::partial_sort(order.begin(), order.begin() + count, order.end(), before);
    order.resize(static_cast<std::size_t>(count));
    return order;
}

/// Values of experts outside the best groups become −∞.
void leave_best_groups(const MixtureRule& rule, std::span<float> values) {
    if (rule.groups == 1) return;
    const std::size_t size = values.size() / static_cast<std::size_t>(rule.groups);
    std::vector<float> groups;
    for (std::size_t first = 0; first < values.size(); first += size) {
        const auto group = values.subspan(first, size);
        float sum = 0;
        for (const std::size_t i : largest(group, rule.group_best)) sum += group[i];
        groups.push_back(sum);
    }
    std::vector<bool> kept(groups.size(), false);
    for (const std::size_t group : largest(groups, rule.groups_per_token)) kept[group] = true;
    for (std::size_t i = 0; i < values.size(); ++i) {
        if (!kept[i / size]) values[i] = -std::numeric_limits<float>::infinity();
    }
}

/// The weights of one token's experts; the others become 0. @param scores of one token, [experts]
void choose(const MixtureRule& rule, std::span<const float> correction, std::span<float> scores) {
    std::vector<float> values(scores.begin(), scores.end());
    for (std::size_t i = 0; i < correction.size(); ++i) values[i] += correction[i];
    leave_best_groups(rule, values);
    const std::vector<std::size_t> chosen = largest(values, rule.per_token);
    float sum = 0;
    for (const std::size_t i : chosen) sum += scores[i];
    const float factor = rule.scale / (rule.normalised ? sum + 1e-20F : 1.0F);
    std::fill(values.begin(), values.end(), 0.0F);
    for (const std::size_t i : chosen) values[i] = scores[i] * factor;
    std::copy(values.begin(), values.end(), scores.begin());
}

/// out = the shared expert's output, or 0 if there is none.
void share(const MlpRule& rule, const MixtureView& view, const Matrix& x, MixtureWorkspace& work, Matrix& out) {
    if (rule.mixture.shared_width == 0) {
        out.setZero(x.rows(), x.cols());
        return;
    }
    mlp(rule, view.shared, x, work.mlp, out);
    if (!rule.mixture.shared_gate) return;
    project(view.shared_gate, x, work.gate);
    for_each_token(x.rows(), [&](std::int64_t t) { out.row(t) *= sigmoid(work.gate(t, 0)); });
}

}  // namespace

float sigmoid(float x) { return 1.0F / (1.0F + std::exp(-x)); }

std::int64_t mixture_scratch(const MixtureRule& rule, std::int64_t hidden) {
    if (rule.experts == 0) return 0;
    constexpr auto kFloats = static_cast<std::int64_t>(sizeof(RoutedToken) / sizeof(float));
    return 2 * rule.experts + 1 + kFloats * rule.per_token + 2 * hidden;
}

void route(const MixtureRule& rule, std::span<const float> correction, Matrix& scores, Matrix& weights,
           std::vector<std::vector<RoutedToken>>& to) {
    weights.resize(scores.rows(), scores.cols());
    for_each_token(scores.rows(), [&](std::int64_t t) {
        const auto experts = static_cast<std::size_t>(scores.cols());
        logits_to_scores(rule.score, {scores.row(t).data(), experts});
        weights.row(t) = scores.row(t);
        choose(rule, correction, {weights.row(t).data(), experts});
    });
    to.resize(static_cast<std::size_t>(rule.experts));
    for (std::int64_t e = 0; e < rule.experts; ++e) {
        auto& tokens = to[static_cast<std::size_t>(e)];
        tokens.clear();
        for (std::int64_t t = 0; t < weights.rows(); ++t) {
            if (weights(t, e) != 0) tokens.push_back({t, weights(t, e)});
        }
    }
}

void choose_experts(const MixtureRule& rule, const MixtureView& view, const Matrix& x, MixtureWorkspace& work) {
    project(view.router, x, work.scores);
    std::vector<float> correction(view.correction != nullptr ? static_cast<std::size_t>(rule.experts) : 0);
    if (view.correction != nullptr) to_float(*view.correction, 0, correction);
    route(rule, correction, work.scores, work.weights, work.routed);
}

void gather_tokens(const Matrix& x, std::span<const RoutedToken> tokens, Matrix& rows) {
    rows.resize(std::ssize(tokens), x.cols());
    for (Eigen::Index i = 0; i < rows.rows(); ++i) rows.row(i) = x.row(tokens[static_cast<std::size_t>(i)].token);
}

void mixture(const MlpRule& rule, const MixtureView& view, const Matrix& x, MixtureWorkspace& work, Matrix& out) {
    choose_experts(rule.mixture, view, x, work);
    share(rule, view, x, work, out);
    for (std::size_t e = 0; e < view.experts.size(); ++e) {
        const std::vector<RoutedToken>& tokens = work.routed[e];
        if (tokens.empty()) continue;
        gather_tokens(x, tokens, work.rows);
        mlp(rule, view.experts[e], work.rows, work.mlp, work.output);
        for (Eigen::Index i = 0; i < work.output.rows(); ++i) {
            const RoutedToken& routed = tokens[static_cast<std::size_t>(i)];
            out.row(routed.token) += routed.weight * work.output.row(i);
        }
    }
}

}  // namespace mha2mla
