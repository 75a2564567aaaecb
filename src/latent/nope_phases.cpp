#include "nope_phases.hpp"

#include <algorithm>
#include <array>
#include <iterator>

#include "../forward/layer.hpp"
#include "../forward/softmax.hpp"
#include "../model/head_order.hpp"
#include "../support/parallel.hpp"

namespace mha2mla {
namespace {

constexpr std::int64_t kQueries = 128;  // of a sequence
constexpr double kRidge = 1e-6;

/// Sums over queries and keys of products of a pair's contributions: `dot` is the real part of q·conj(k), `cross` the
/// imaginary part that a turn mixes in, `wanted` what the rotation gave.
struct Fit {
    double dot_dot = 0, dot_cross = 0, cross_cross = 0, dot_wanted = 0, cross_wanted = 0;

    /// One query. @param attention over its visible keys.
    void add(Eigen::Ref<const Eigen::RowVectorXf> attention, Eigen::Ref<const Eigen::RowVectorXf> dots,
             Eigen::Ref<const Eigen::RowVectorXf> crosses, Eigen::Ref<const Eigen::RowVectorXf> wants) {
        double d = 0, c = 0, w = 0, dd = 0, dc = 0, cc = 0, dw = 0, cw = 0;
        for (Eigen::Index s = 0; s < attention.size(); ++s) {
            const double a = attention(s), x = dots(s), y = crosses(s), z = wants(s);
            d += a * x, c += a * y, w += a * z;
            dd += a * x * x, dc += a * x * y, cc += a * y * y, dw += a * x * z, cw += a * y * z;
        }
        dot_dot += dd - d * d, dot_cross += dc - d * c, cross_cross += cc - c * c;
        dot_wanted += dw - d * w, cross_wanted += cw - c * w;
    }

    /// The factors of dot and cross; (1, 0) where the pair contributes nothing.
    [[nodiscard]] std::array<double, 2> solve() const {
        const double ridge = kRidge * (dot_dot + cross_cross);
        const double a = dot_dot + ridge, b = cross_cross + ridge;
        const double determinant = a * b - dot_cross * dot_cross;
        if (!(determinant > 0)) return {1, 0};
        return {(b * dot_wanted - dot_cross * cross_wanted) / determinant,
                (a * cross_wanted - dot_cross * dot_wanted) / determinant};
    }
};

/// One query head in one sequence.
class Sequence {
public:
    Sequence(const AttentionRule& rule, const RotaryTable& rotary, Matrix q, Matrix k)
        : k_(std::move(k)), rotated_k_(k_) {
        const std::int64_t seq_len = k_.rows(), dim = k_.cols();
        const std::int64_t queries = std::min(kQueries, seq_len);
        q_.resize(queries, dim);
        for (std::int64_t i = 0; i < queries; ++i) {
            visible_.push_back((i + 1) * seq_len / queries);
            q_.row(i) = q.row(visible_.back() - 1);
        }
        rotated_q_ = q_;
        for (std::int64_t i = 0; i < queries; ++i) {
            rotary.rotate(rotated_q_.row(i).data(), visible_[static_cast<std::size_t>(i)] - 1, {});
        }
        for (std::int64_t t = 0; t < seq_len; ++t) rotary.rotate(rotated_k_.row(t).data(), t, {});
        attention_ = rule.scale * rotated_q_ * rotated_k_.transpose();
        for (std::int64_t i = 0; i < queries; ++i) {
            auto row = attention_.row(i).head(visible_[static_cast<std::size_t>(i)]);
            row /= attention_weights(rule, row.size() - 1, row.data());
        }
    }

    void add_to(Fit& fit, std::int64_t pair) const {
        const std::int64_t other = pair + k_.cols() / 2;
        const Matrix dot = q_.col(pair) * k_.col(pair).transpose() + q_.col(other) * k_.col(other).transpose();
        const Matrix cross = q_.col(pair) * k_.col(other).transpose() - q_.col(other) * k_.col(pair).transpose();
        const Matrix wanted = rotated_q_.col(pair) * rotated_k_.col(pair).transpose() +
                              rotated_q_.col(other) * rotated_k_.col(other).transpose();
        for (std::size_t i = 0; i < visible_.size(); ++i) {
            const auto row = static_cast<Eigen::Index>(i);
            const auto head = [&](const Matrix& of) { return of.row(row).head(visible_[i]); };
            fit.add(head(attention_), head(dot), head(cross), head(wanted));
        }
    }

private:
    std::vector<std::int64_t> visible_;  // keys, by query
    Matrix q_, rotated_q_, k_, rotated_k_, attention_;
};

std::vector<std::int64_t> pairs_without(const std::vector<std::int64_t>& kept, std::int64_t count) {
    std::vector<std::int64_t> rest;
    for (std::int64_t k = 0; k < count; ++k) {
        if (!std::binary_search(kept.begin(), kept.end(), k)) rest.push_back(k);
    }
    return rest;
}

}  // namespace

void fit_nope_phases(const Model& model, std::int64_t layer, const Matrix& sample, std::int64_t seq_len,
                     LatentLayer& latent) {
    const AttentionView& view = model.layer(layer).original_attention();
    const LatentShape& shape = latent.shape;
    const std::int64_t dim = shape.head_dim, nope = shape.nope_dim(), group = shape.group_size();
    const HeadOrder order = head_order(model, layer);
    const RotaryTable rotary(ordered_rule(model.rules(layer).rotary, dim), seq_len);
    Matrix q, k;
    project_queries_and_keys(view, sample, q, k);
    q = order.query_columns(q), k = order.columns(k);
    parallel_for(shape.num_heads, [&](std::int64_t head, std::vector<float>&) {
        const std::int64_t kv_head = head / group;
        const auto pairs = pairs_without(latent.pairs[static_cast<std::size_t>(kv_head)], dim / 2);
        std::vector<Fit> fits(pairs.size());
        for (std::int64_t first = 0; first < sample.rows(); first += seq_len) {
            const Sequence sequence(model.rules(layer).attention, rotary, q.block(first, head * dim, seq_len, dim),
                                    k.block(first, kv_head * dim, seq_len, dim));
            for (std::size_t i = 0; i < pairs.size(); ++i) sequence.add_to(fits[i], pairs[i]);
        }
        // (a·q1 − b·q2)·k1 + (a·q2 + b·q1)·k2 = a·dot + b·cross
        const std::int64_t rows = shape.num_heads * shape.rope_dim + head * nope;
        for (std::size_t i = 0; i < pairs.size(); ++i) {
            const auto [a, b] = fits[i].solve();
            const std::int64_t one = rows + static_cast<std::int64_t>(i), two = one + nope / 2;
            const auto turn = [a = static_cast<float>(a), b = static_cast<float>(b)](auto first, auto second) {
                const auto before = first.eval();
                first = a * before - b * second;
                second = (a * second + b * before).eval();
            };
            turn(latent.weights.q.row(one), latent.weights.q.row(two));
            if (latent.weights.q_bias.size() > 0)
                turn(latent.weights.q_bias.segment(one, 1), latent.weights.q_bias.segment(two, 1));
        }
    });
}

}  // namespace mha2mla
