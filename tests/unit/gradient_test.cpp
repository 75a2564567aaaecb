// Each operation of the Transformer and its gradient against a definition in double, written here once more.
#include <complex>

#include "forward/head.hpp"
#include "forward/mixture.hpp"
#include "forward/mlp.hpp"
#include "forward/norm.hpp"
#include "forward/rotary.hpp"
#include "forward/softmax.hpp"
#include "latent/attention_target.hpp"
#include "latent/latent_layer.hpp"
#include "support/slopes.hpp"
#include "train/adam.hpp"
#include "train/losses.hpp"

namespace mha2mla::test {
namespace {

/// A weight as the operations read it, and as the definition does.
struct Weight {
    Matrix values, gradient;
    MatrixD exact;
    TensorView tensor;

    Weight(std::int64_t rows, std::int64_t cols, unsigned seed, Shape shape = {})
        : values(normal_matrix(rows, cols, seed)),
          gradient(Matrix::Zero(rows, cols)),
          exact(values.cast<double>()),
          tensor(tensor_of(values, shape.empty() ? Shape{rows, cols} : std::move(shape))) {}
};

/// Σ weights ∘ y: a loss whose derivative by y is `weights`.
double dot(const Matrix& weights, const MatrixD& y) { return weights.cast<double>().cwiseProduct(y).sum(); }

/// x·Wᵀ + b
MatrixD affine(const MatrixD& x, const MatrixD& w, const MatrixD& bias) {
    return (x * w.transpose()).rowwise() + bias.row(0);
}

MatrixD norm_by_definition(const NormRule& rule, const MatrixD& x, const MatrixD& weight, const MatrixD* bias) {
    const Eigen::Index width = weight.cols();
    MatrixD y(x.rows(), x.cols());
    for (Eigen::Index t = 0; t < x.rows(); ++t) {
        for (Eigen::Index first = 0; first < x.cols(); first += width) {
            double mean = 0, square = 0;
            for (Eigen::Index i = 0; i < width; ++i) mean += x(t, first + i) / double(width);
            if (rule.kind == NormRule::Kind::rms) mean = 0;
            for (Eigen::Index i = 0; i < width; ++i) square += std::pow(x(t, first + i) - mean, 2) / double(width);
            const Eigen::Index row = first / width % weight.rows();
            for (Eigen::Index i = 0; i < width; ++i) {
                y(t, first + i) = (x(t, first + i) - mean) / std::sqrt(square + rule.eps) *
                                      (double(rule.weight_offset) + weight(row, i)) +
                                  (bias != nullptr ? (*bias)(row, i) : 0.0);
            }
        }
    }
    return y;
}

TEST(Gradient, NormsOfRowsAndOfHeads) {
    constexpr std::int64_t kTokens = 70;  // more than one block of the sums
    for (const auto kind : {NormRule::Kind::rms, NormRule::Kind::layer}) {
        for (const std::int64_t rows : {1, 3}) {        // of the weight
            for (const std::int64_t groups : {1, 3}) {  // heads of a token
                if (rows > groups) continue;
                const std::string what = "kind " + std::to_string(int(kind)) + ", rows " + std::to_string(rows) +
                                         ", groups " + std::to_string(groups);
                const bool with_bias = kind == NormRule::Kind::layer;
                Weight weight(rows, 6, 1), bias(rows, 6, 2);
                const NormView view{&weight.tensor, with_bias ? &bias.tensor : nullptr, {kind, 0.1, 1.0F}};
                const Matrix x = normal_matrix(kTokens, groups * 6, 3);
                const Matrix d_out = normal_matrix(kTokens, groups * 6, 4);
                MatrixD exact = x.cast<double>();
                const MatrixD* exact_bias = with_bias ? &bias.exact : nullptr;
                Matrix out;
                norm(view, x, out);
                expect_equal(what, out, norm_by_definition(view.rule, exact, weight.exact, exact_bias));
                Matrix dx = normal_matrix(kTokens, groups * 6, 5);
                const Matrix before = dx;
                norm_gradient(view, x, d_out, dx, {weight.gradient.data(), with_bias ? bias.gradient.data() : nullptr});
                dx -= before;
                const auto loss = [&] {
                    return dot(d_out, norm_by_definition(view.rule, exact, weight.exact, exact_bias));
                };
                expect_slopes(what + ": x", exact, dx.data(), loss);
                expect_slopes(what + ": weight", weight.exact, weight.gradient.data(), loss);
                if (with_bias) expect_slopes(what + ": bias", bias.exact, bias.gradient.data(), loss);
            }
        }
    }
}

double act_by_definition(Activation kind, double x) {
    switch (kind) {
        case Activation::silu:
            return x / (1 + std::exp(-x));
        case Activation::gelu:
            return x * (1 + std::erf(x / std::sqrt(2.0))) / 2;
        case Activation::gelu_tanh:
            return x * (1 + std::tanh(std::sqrt(2 / 3.14159265358979323846) * (x + 0.044715 * std::pow(x, 3)))) / 2;
        case Activation::relu_squared:
            return std::pow(std::max(x, 0.0), 2);
    }
    return 0;
}

TEST(Gradient, EveryActivationGatedOrNot) {
    constexpr std::int64_t kTokens = 9, kHidden = 5, kWidth = 7;
    for (const auto kind : {Activation::silu, Activation::gelu, Activation::gelu_tanh, Activation::relu_squared}) {
        for (const bool gated : {true, false}) {
            const std::string what = "activation " + std::to_string(int(kind)) + (gated ? ", gated" : "");
            const MlpRule rule{kind, gated, true};
            Weight gate(kWidth, kHidden, 1), up(kWidth, kHidden, 2), down(kHidden, kWidth, 3);
            Weight gate_bias(1, kWidth, 4, {kWidth}), up_bias(1, kWidth, 5, {kWidth}),
                down_bias(1, kHidden, 6, {kHidden});
            const MlpView view{{gated ? &gate.tensor : nullptr, gated ? &gate_bias.tensor : nullptr},
                               {&up.tensor, &up_bias.tensor},
                               {&down.tensor, &down_bias.tensor}};
            const Matrix x = normal_matrix(kTokens, kHidden, 7), d_out = normal_matrix(kTokens, kHidden, 8);
            MatrixD exact = x.cast<double>();
            const auto by_definition = [&] {
                const auto act = [&](double v) { return act_by_definition(kind, v); };
                const MatrixD u = affine(exact, up.exact, up_bias.exact);
                const MatrixD inner =
                    gated ? MatrixD(affine(exact, gate.exact, gate_bias.exact).unaryExpr(act).cwiseProduct(u))
                          : MatrixD(u.unaryExpr(act));
                return affine(inner, down.exact, down_bias.exact);
            };
            MlpWorkspace work;
            MlpActivations at;
            Matrix out, kept, dx;
            mlp(rule, view, x, work, out);
            expect_equal(what, out, by_definition());
            mlp_keeping(rule, view, x, at, kept);
            EXPECT_EQ(out, kept) << what;
            mlp_gradient(rule, view, x, at, d_out, dx,
                         {{gate.gradient.data(), gate_bias.gradient.data()},
                          {up.gradient.data(), up_bias.gradient.data()},
                          {down.gradient.data(), down_bias.gradient.data()}});
            const auto loss = [&] { return dot(d_out, by_definition()); };
            expect_slopes(what + ": x", exact, dx.data(), loss);
            for (Weight* weight : {&up, &up_bias, &down, &down_bias}) {
                expect_slopes(what, weight->exact, weight->gradient.data(), loss);
            }
            if (!gated) continue;
            expect_slopes(what + ": gate", gate.exact, gate.gradient.data(), loss);
            expect_slopes(what + ": gate's bias", gate_bias.exact, gate_bias.gradient.data(), loss);
        }
    }
}

using Pairs = std::vector<std::vector<std::int64_t>>;

/// Pair k of a head as a complex number times gain · e^{iθt}.
void rotate_by_definition(const RotaryRule& rule, std::int64_t seq_len, std::int64_t heads, std::int64_t dim,
                          const Pairs& pairs, MatrixD& x) {
    for (Eigen::Index t = 0; t < x.rows(); ++t) {
        for (std::int64_t head = 0; head < heads; ++head) {
            std::vector<std::int64_t> kept(rule.frequencies.size());
            for (std::size_t k = 0; k < kept.size(); ++k) kept[k] = std::int64_t(k);
            if (!pairs.empty()) kept = pairs[std::size_t(head) / (std::size_t(heads) / pairs.size())];
            const auto half = std::ssize(kept);
            for (std::int64_t j = 0; j < half; ++j) {
                const std::int64_t a = head * dim + (rule.interleaved ? 2 * j : j);
                const std::int64_t b = head * dim + (rule.interleaved ? 2 * j + 1 : j + half);
                const double angle = double(t % seq_len) * rule.frequencies[std::size_t(kept[std::size_t(j)])];
                const auto z = std::complex<double>(x(t, a), x(t, b)) * std::polar(double(rule.gain), angle);
                x(t, a) = z.real();
                x(t, b) = z.imag();
            }
        }
    }
}

TEST(Gradient, RotationOfAllOrSomePairsWithGainAndInterleaved) {
    constexpr std::int64_t kSeqLen = 5, kHeads = 4, kDim = 8;
    for (const bool interleaved : {false, true}) {
        for (const Pairs& pairs : {Pairs{}, Pairs{{0, 2}, {1, 2}}}) {
            const RotaryRule rule{{1.0, 0.3, 0.05}, 1.25F, interleaved};  // 6 of 8 dims, or 4
            const RotaryTable table(rule, kSeqLen);
            Matrix x = normal_matrix(2 * kSeqLen, kHeads * kDim, 1);
            MatrixD exact = x.cast<double>();
            rotate_heads(table, Turn::forward, kSeqLen, x.rows(), {x.data(), x.cols(), kHeads, kDim}, pairs);
            MatrixD expected = exact;
            rotate_by_definition(rule, kSeqLen, kHeads, kDim, pairs, expected);
            expect_equal("rotated", x, expected);
            const Matrix d_out = normal_matrix(2 * kSeqLen, kHeads * kDim, 2);
            Matrix dx = d_out;
            rotate_heads(table, Turn::back, kSeqLen, dx.rows(), {dx.data(), dx.cols(), kHeads, kDim}, pairs);
            expect_slopes("rotation", exact, dx.data(), [&] {
                MatrixD y = exact;
                rotate_by_definition(rule, kSeqLen, kHeads, kDim, pairs, y);
                return dot(d_out, y);
            });
        }
    }
}

MatrixD softmax_by_definition(const AttentionRule& rule, const MatrixD& logits) {
    MatrixD p = MatrixD::Zero(logits.rows(), logits.cols());
    for (Eigen::Index t = 0; t < p.rows(); ++t) {
        double sum = 0;
        for (Eigen::Index s = 0; s <= t; ++s) {
            if (rule.window > 0 && t - s >= rule.window) continue;
            const auto cap = double(rule.softcap);
            p(t, s) = std::exp(cap > 0 ? cap * std::tanh(logits(t, s) / cap) : logits(t, s));
            sum += p(t, s);
        }
        p.row(t) /= sum;
    }
    return p;
}

TEST(Gradient, MaskedSoftmaxWithWindowAndSoftCap) {
    constexpr std::int64_t kLen = 11;
    for (const float cap : {0.0F, 1.5F}) {
        for (const std::int64_t window : {0, 1, 4, 11, 30}) {
            const AttentionRule rule{1.0F, cap, window};
            const Matrix logits = normal_matrix(kLen, kLen, 1), d_out = normal_matrix(kLen, kLen, 2);
            MatrixD exact = logits.cast<double>();
            Matrix p = logits;
            causal_softmax(rule, kLen, p.data());
            expect_equal("softmax", p, softmax_by_definition(rule, exact));
            if (window == 1) continue;  // each query sees itself only: no slopes
            Matrix d = d_out;
            causal_softmax_gradient(rule, kLen, p.data(), d.data());
            if (cap > 0) {
                Matrix capped = logits;
                soft_cap(cap, capped.size(), capped.data());
                soft_cap_gradient(cap, capped.size(), capped.data(), d.data());
            }
            expect_slopes("cap " + std::to_string(cap) + ", window " + std::to_string(window), exact, d.data(),
                          [&] { return dot(d_out, softmax_by_definition(rule, exact)); });
        }
    }
}

/// The head and the losses behind it, on 300 tokens: more than one block of logits.
class HeadGradients : public testing::TestWithParam<ModelRules> {
protected:
    static constexpr std::int64_t kTokens = 300, kHidden = 4, kVocab = 6;
    Weight norm_{1, kHidden, 1, {kHidden}}, lm_head_{kVocab, kHidden, 2};
    HeadView view_{{&norm_.tensor, nullptr, {.eps = 0.01}}, {&lm_head_.tensor}};
    TokenHead head_{GetParam(), view_};
    Matrix hidden_ = normal_matrix(kTokens, kHidden, 3), d_hidden_;
    MatrixD exact_ = hidden_.cast<double>();

    [[nodiscard]] MatrixD log_probabilities(const MatrixD& hidden) const {
        const ModelRules& rules = GetParam();
        MatrixD y = norm_by_definition(view_.norm.rule, hidden, norm_.exact, nullptr) * lm_head_.exact.transpose();
        y *= double(rules.logit_scale);
        const auto cap = double(rules.final_softcap);
        if (cap > 0) y = (y / cap).array().tanh() * cap;
        for (Eigen::Index t = 0; t < y.rows(); ++t) y.row(t).array() -= std::log(y.row(t).array().exp().sum());
        return y;
    }
    HeadGradient to_{{norm_.gradient.data(), nullptr}, {lm_head_.gradient.data(), nullptr}};

    template <typename Loss>
    void expect_all_slopes(double ours, const Loss& loss) {
        EXPECT_NEAR(ours, loss(), 1e-5 * std::abs(loss()));
        expect_slopes("hidden", exact_, d_hidden_.data(), loss);
        expect_slopes("norm", norm_.exact, norm_.gradient.data(), loss);
        expect_slopes("lm_head", lm_head_.exact, lm_head_.gradient.data(), loss);
    }
};

TEST_P(HeadGradients, OfTheNextToken) {
    std::vector<TokenId> targets;
    for (std::int64_t t = 0; t < kTokens; ++t) targets.push_back(TokenId(t % 7 == 3 ? -1 : t * t % kVocab));
    const double ours = next_token_loss(head_, hidden_, targets, d_hidden_, to_);
    expect_all_slopes(ours, [&] {
        const MatrixD p = log_probabilities(exact_);
        double sum = 0, count = 0;
        for (std::int64_t t = 0; t < kTokens; ++t) {
            if (targets[std::size_t(t)] < 0) continue;
            sum -= p(t, targets[std::size_t(t)]);
            ++count;
        }
        return sum / count;
    });
}

TEST_P(HeadGradients, OfTheDivergenceFromATeacher) {
    const Matrix wanted = normal_matrix(kTokens, kHidden, 4);
    const MatrixD teacher = log_probabilities(wanted.cast<double>());
    const double ours = distribution_loss(head_, hidden_, wanted, d_hidden_, to_);
    expect_all_slopes(ours, [&] {
        const MatrixD p = log_probabilities(exact_);
        return (teacher.array().exp() * (teacher - p).array()).sum() / double(kTokens);
    });
}

INSTANTIATE_TEST_SUITE_P(Rules, HeadGradients,
                         testing::Values(ModelRules{},
                                         ModelRules{.layers = {}, .logit_scale = 0.25F, .final_softcap = 2.0F}));

TEST(Gradient, SquaredErrorOfWeightedTokens) {
    const Matrix output = normal_matrix(6, 4, 1), target = normal_matrix(6, 4, 2);
    const Vector weight = normal_matrix(6, 1, 3).cwiseAbs();
    MatrixD exact = output.cast<double>();
    const auto loss = [&] {
        double sum = 0;
        for (Eigen::Index t = 0; t < 6; ++t) {
            for (Eigen::Index i = 0; i < 4; ++i) {
                sum += double(weight(t)) * std::pow(exact(t, i) - double(target(t, i)), 2) / 24;
            }
        }
        return sum;
    };
    Matrix d_output;
    EXPECT_NEAR(squared_loss(output, target, weight, &d_output), loss(), 1e-6 * loss());
    expect_slopes("output", exact, d_output.data(), loss);
}

/// down(silu(gate(x)) ∘ up(x)) by the weights of `of`: gate, up, down.
MatrixD mlp_by_definition(std::span<const Weight> of, const MatrixD& x) {
    const MatrixD gate = x * of[0].exact.transpose();
    return gate.unaryExpr([](double v) { return act_by_definition(Activation::silu, v); })
               .cwiseProduct(x * of[1].exact.transpose()) *
           of[2].exact.transpose();
}

/// Which experts a token goes through is given, as its gradient takes it.
MatrixD mixture_by_definition(const MixtureRule& rule, std::span<const Weight> weights, const MatrixD& shared_gate,
                              const std::vector<std::vector<RoutedToken>>& routed, const MatrixD& x) {
    const auto experts = static_cast<std::size_t>(rule.experts);
    MatrixD scores = (x * weights.back().exact.transpose()).array().exp();
    for (Eigen::Index t = 0; t < x.rows(); ++t) {
        if (rule.score == ExpertScore::softmax) scores.row(t) /= scores.row(t).sum();
        if (rule.score == ExpertScore::sigmoid) scores.row(t).array() /= 1 + scores.row(t).array();
    }
    MatrixD sums = MatrixD::Zero(x.rows(), 1), out = MatrixD::Zero(x.rows(), x.cols());
    for (std::size_t e = 0; e < experts; ++e) {
        for (const RoutedToken& at : routed[e]) sums(at.token, 0) += scores(at.token, static_cast<Eigen::Index>(e));
    }
    for (std::size_t e = 0; e < experts; ++e) {
        const MatrixD output = mlp_by_definition(weights.subspan(3 * e, 3), x);
        for (const auto& [t, weight] : routed[e]) {
            const double score = scores(t, static_cast<Eigen::Index>(e));
            out.row(t) += double(rule.scale) * (rule.normalised ? score / sums(t, 0) : score) * output.row(t);
        }
    }
    if (rule.shared_width == 0) return out;
    const MatrixD output = mlp_by_definition(weights.subspan(3 * experts, 3), x);
    for (Eigen::Index t = 0; t < x.rows(); ++t) {
        const double logit = x.row(t).dot(shared_gate.row(0));
        out.row(t) += (rule.shared_gate ? 1 / (1 + std::exp(-logit)) : 1.0) * output.row(t);
    }
    return out;
}

TEST(Gradient, OfExpertsTheirRouterAndTheSharedOne) {
    constexpr std::int64_t kTokens = 40, kHidden = 5, kWidth = 4, kExperts = 4;
    for (const auto score : {ExpertScore::softmax, ExpertScore::sigmoid})
        for (const bool normalised : {false, true})
            for (const bool gate : {false, true}) {
                const std::string what = std::string(score == ExpertScore::softmax ? "softmax" : "sigmoid") +
                                         (normalised ? ", normalised" : "") + (gate ? ", gate: " : ": ");
                MlpRule rule;
                MixtureRule& mixed = rule.mixture;
                mixed.experts = kExperts, mixed.per_token = 2, mixed.width = kWidth;
                mixed.score = score, mixed.normalised = normalised, mixed.scale = 1.5F;
                mixed.shared_gate = gate;
                if (gate || normalised) mixed.shared_width = kWidth;
                std::vector<Weight> weights;  // of each expert, of the shared one, and of the router
                weights.reserve(3 * (kExperts + 1) + 1);
                for (unsigned i = 0; i < 3 * (kExperts + 1); ++i) {
                    weights.emplace_back(i % 3 == 2 ? kHidden : kWidth, i % 3 == 2 ? kWidth : kHidden, i + 1);
                }
                weights.emplace_back(kExperts, kHidden, 100);
                Weight shared_gate(1, kHidden, 101);
                const auto mlp_at = [&](std::size_t i) {
                    return MlpView{{&weights[i].tensor}, {&weights[i + 1].tensor}, {&weights[i + 2].tensor}};
                };
                const auto gradient_at = [&](std::size_t i) {
                    return MlpGradient{{weights[i].gradient.data()},
                                       {weights[i + 1].gradient.data()},
                                       {weights[i + 2].gradient.data()}};
                };
                MixtureView view{{&weights.back().tensor}, nullptr, {}, mlp_at(3 * kExperts), {&shared_gate.tensor}};
                MixtureGradient to{
                    {weights.back().gradient.data()}, {}, gradient_at(3 * kExperts), {shared_gate.gradient.data()}};
                for (std::size_t e = 0; e < kExperts; ++e) {
                    view.experts.push_back(mlp_at(3 * e));
                    to.experts.push_back(gradient_at(3 * e));
                }
                const Matrix x = normal_matrix(kTokens, kHidden, 102), d_out = normal_matrix(kTokens, kHidden, 103);
                MatrixD exact = x.cast<double>();
                MixtureWorkspace work;
                Matrix out, dx;
                mixture(rule, view, x, work, out);
                const auto by_definition = [&] {
                    return mixture_by_definition(mixed, weights, shared_gate.exact, work.routed, exact);
                };
                expect_equal(what, out, by_definition());
                mixture_gradient(rule, view, x, d_out, dx, to);
                const auto loss = [&] { return dot(d_out, by_definition()); };
                expect_slopes(what + "x", exact, dx.data(), loss);
                for (std::size_t i = 0; i < weights.size(); ++i) {
                    const bool of_shared = i >= 3 * kExperts && i + 1 < weights.size();
                    if (of_shared && mixed.shared_width == 0) continue;
                    expect_slopes(what + std::to_string(i), weights[i].exact, weights[i].gradient.data(), loss);
                }
                if (gate) expect_slopes(what + "gate", shared_gate.exact, shared_gate.gradient.data(), loss);
            }
}

/// Norms of heads whose parts begin at columns `rope_at` of `rope` and `nope_at` of `nope`, side by side.
/// @param weights of the norm, of both parts.
void norm_heads_by_definition(const HeadNorm& norm, std::span<const MatrixD> weights, MatrixD& rope,
                              Eigen::Index rope_at, MatrixD& nope, Eigen::Index nope_at) {
    const Eigen::Index r = norm.rope.cols(), n = norm.nope.cols(), heads = norm.heads();
    for (Eigen::Index t = 0; t < rope.rows(); ++t) {
        const double all = rope.row(t).segment(rope_at, heads * r).squaredNorm() +
                           nope.row(t).segment(nope_at, heads * n).squaredNorm();
        for (Eigen::Index h = 0; h < heads; ++h) {
            auto first = rope.row(t).segment(rope_at + h * r, r);
            auto second = nope.row(t).segment(nope_at + h * n, n);
            const double mean = norm.whole ? all / double(heads * (r + n))
                                           : (first.squaredNorm() + second.squaredNorm()) / double(r + n);
            const double scale = 1 / std::sqrt(mean + norm.eps);
            first = (scale * first.cwiseProduct(weights[0].row(h))).eval();
            second = (scale * second.cwiseProduct(weights[1].row(h))).eval();
        }
    }
}

/// A layer in MLA form whose weights the definition reads as double.
struct ExactLatent {
    std::vector<MatrixD> weights;     // q, k_rope, down, up_k, up_v, o, and the four biases
    std::vector<MatrixD> head_norms;  // both parts of queries and of keys, if there are norms

    explicit ExactLatent(const LatentLayer& layer) {
        for (const Matrix* w : matrices(layer.weights)) weights.push_back(w->cast<double>());
        for (const Vector* b : biases(layer.weights)) {
            weights.push_back(b->transpose().cast<double>());
        }
        if (!layer.head_norms) return;
        for (const HeadNorm* norm : {&layer.head_norms->query, &layer.head_norms->key}) {
            head_norms.push_back(norm->rope.cast<double>());
            head_norms.push_back(norm->nope.cast<double>());
        }
    }
    [[nodiscard]] MatrixD run(const LatentLayer& layer, const RotaryRule& rotary, std::int64_t seq_len,
                              const MatrixD& x) const {
        const LatentShape& shape = layer.shape;
        const std::int64_t rope = shape.rope_dim, nope = shape.nope_dim(), dim = shape.head_dim;
        MatrixD q = affine(x, weights[0], weights[6]), k_rope = affine(x, weights[1], weights[7]);
        MatrixD latent = x * weights[2].transpose();
        for (Eigen::Index t = 0; layer.norm_eps > 0 && t < latent.rows(); ++t) {
            latent.row(t) /= std::sqrt(latent.row(t).squaredNorm() / double(latent.cols()) + layer.norm_eps);
        }
        MatrixD k_nope = affine(latent, weights[3], weights[8]);
        const MatrixD v = affine(latent, weights[4], weights[9]);
        if (layer.head_norms) {
            const std::span norms(head_norms);
            norm_heads_by_definition(layer.head_norms->query, norms.first(2), q, 0, q, shape.num_heads * rope);
            norm_heads_by_definition(layer.head_norms->key, norms.last(2), k_rope, 0, k_nope, 0);
        }
        rotate_by_definition(rotary, seq_len, shape.num_heads, rope, layer.pairs, q);
        rotate_by_definition(rotary, seq_len, shape.rope_keys(), rope, layer.pairs, k_rope);
        MatrixD mixed(x.rows(), shape.num_heads * dim);
        for (Eigen::Index first = 0; first < x.rows(); first += seq_len) {
            for (std::int64_t head = 0; head < shape.num_heads; ++head) {
                const std::int64_t up = head * shape.up_heads() / shape.num_heads;
                const std::int64_t key = head * shape.rope_keys() / shape.num_heads;
                const MatrixD logits =
                    double(layer.rule.scale) * (q.block(first, head * rope, seq_len, rope) *
                                                    k_rope.block(first, key * rope, seq_len, rope).transpose() +
                                                q.block(first, shape.num_heads * rope + head * nope, seq_len, nope) *
                                                    k_nope.block(first, up * nope, seq_len, nope).transpose());
                mixed.block(first, head * dim, seq_len, dim) =
                    softmax_by_definition(layer.rule, logits) * v.block(first, up * dim, seq_len, dim);
            }
        }
        return mixed * weights[5].transpose();
    }
};

TEST(Gradient, OfALayerInLatentForm) {
    constexpr std::int64_t kSeqLen = 7, kHidden = 6;
    const std::array<AttentionRule, 3> rules = {AttentionRule{0.5F}, AttentionRule{0.3F, 0.0F, 3},
                                                AttentionRule{0.7F, 2.0F, 4}};
    enum class Norms { none, of_heads, of_all_heads, of_latent };
    for (const bool shared : {false, true})
        for (const AttentionRule& rule : rules) {
            // Every kind of norm with one of the rules.
            const auto norms = rule.window == 0   ? Norms::none
                               : shared           ? Norms::of_latent
                               : rule.window == 3 ? Norms::of_heads
                                                  : Norms::of_all_heads;
            const std::string what = std::string(shared ? "one key, " : "") + "window " + std::to_string(rule.window) +
                                     ", norms " + std::to_string(static_cast<int>(norms)) + ", ";
            LatentLayer layer;
            if (norms == Norms::of_latent) layer.norm_eps = 0.02;
            if (norms == Norms::of_heads || norms == Norms::of_all_heads) {
                const bool whole = norms == Norms::of_all_heads;
                layer.head_norms = {{0.01, whole, normal_matrix(4, 4, 20), normal_matrix(4, 2, 21)},
                                    {0.03, whole, normal_matrix(2, 4, 22), normal_matrix(2, 2, 23)}};
            }
            layer.shape = {
                {4, 2, 6, kHidden}, 4, 0, Factorization::joint, shared ? &deepseek_layout() : &reference_layout()};
            if (!shared) layer.pairs = {{0, 2}, {1, 2}};
            layer.rule = rule;
            const LatentShape& shape = layer.shape;
            const std::int64_t queries = shape.latent_query_rows(), keys = shape.up_key_rows();
            const std::int64_t values = shape.up_value_rows();
            layer.weights.q = normal_matrix(queries, kHidden, 1);
            layer.weights.k_rope = normal_matrix(shape.rope_rows(), kHidden, 2);
            layer.weights.down = normal_matrix(5, kHidden, 3);
            layer.weights.up_k = normal_matrix(keys, 5, 4);
            layer.weights.up_v = normal_matrix(values, 5, 5);
            layer.weights.o = normal_matrix(kHidden, 24, 6);
            for (Matrix* weight : matrices(layer.weights)) *weight *= 0.5F;
            layer.weights.q_bias = normal_matrix(queries, 1, 7);
            layer.weights.k_rope_bias = normal_matrix(shape.rope_rows(), 1, 8);
            layer.weights.up_k_bias = normal_matrix(keys, 1, 9);
            layer.weights.up_v_bias = normal_matrix(values, 1, 10);
            const RotaryRule rotary{shared ? std::vector{1.0, 0.2} : std::vector{1.0, 0.3, 0.05}, 1.1F};
            layer.rotary = std::make_shared<RotaryTable>(rotary, kSeqLen);
            const Matrix x = normal_matrix(2 * kSeqLen, kHidden, 11),
                         d_output = normal_matrix(2 * kSeqLen, kHidden, 12);
            MatrixD exact = x.cast<double>();
            ExactLatent twin(layer);
            LatentActivations at;
            run_latent(layer, kSeqLen, x, at);
            expect_equal(what + "output", at.output, twin.run(layer, rotary, kSeqLen, exact));
            LatentGradient gradient;
            gradient.biases = gradient.norms = true;
            Matrix d_input;
            const std::vector<Parameter> all = parameters(layer, gradient);
            differentiate_latent(layer, kSeqLen, x, at, d_output, gradient, &d_input);
            const auto loss = [&] { return dot(d_output, twin.run(layer, rotary, kSeqLen, exact)); };
            expect_slopes(what + "input", exact, d_input.data(), loss);
            ASSERT_EQ(all.size(), twin.weights.size());
            for (std::size_t i = 0; i < all.size(); ++i) {
                ASSERT_EQ(std::ssize(all[i].gradient), twin.weights[i].size());
                if (all[i].name == "up_k_bias") {  // adds the same to all logits of a query, which changes nothing
                    if (rule.softcap == 0 && !layer.head_norms) {
                        EXPECT_LT(gradient.weights.up_k_bias.norm(), 1e-5 * gradient.weights.up_k.norm());
                        continue;
                    }
                }
                expect_slopes(what + all[i].name, twin.weights[i], all[i].gradient.data(), loss);
            }
            ASSERT_EQ(gradient.head_norms.has_value(), layer.head_norms.has_value());
            if (!layer.head_norms) continue;
            const auto& [query, key] = *gradient.head_norms;
            const std::array<const Matrix*, 4> of_norms = {&query.rope, &query.nope, &key.rope, &key.nope};
            for (std::size_t i = 0; i < of_norms.size(); ++i) {
                expect_slopes(what + "norm " + std::to_string(i), twin.head_norms[i], of_norms[i]->data(), loss);
            }
        }
}

TEST(Adam, MovesEachParameterByItsOwnMeasure) {
    Matrix big = 10 * normal_matrix(2, 3, 1), small = normal_matrix(1, 2, 2), d_big(2, 3), d_small(1, 2);
    const auto floats = [](Matrix& m) { return std::span(m.data(), static_cast<std::size_t>(m.size())); };
    Adam adam({{"big", floats(big), floats(d_big)}, {"small", floats(small), floats(d_small)}});
    d_big.setZero(), d_small.setZero();
    MatrixD exact = big.cast<double>(), first = MatrixD::Zero(2, 3), second = first;
    const Matrix small_before = small;
    const double measure = exact.norm() / std::sqrt(6.0);
    for (int step = 1; step <= 3; ++step) {
        d_big.topRows(2) = normal_matrix(2, 3, 10 + unsigned(step));  // in place: Adam keeps the address
        adam.step(0.1 / step);
        for (Eigen::Index i = 0; i < 6; ++i) {  // Kingma and Ba, algorithm 1, with β = 0.9 and 0.99
            const auto g = double(d_big.data()[i]);
            first.data()[i] = 0.9 * first.data()[i] + 0.1 * g;
            second.data()[i] = 0.99 * second.data()[i] + 0.01 * g * g;
            exact.data()[i] -= 0.1 / step * measure * first.data()[i] / (1 - std::pow(0.9, step)) /
                               std::sqrt(second.data()[i] / (1 - std::pow(0.99, step)));
        }
    }
    expect_equal("big", big, exact);
    EXPECT_EQ(small, small_before);
}

}  // namespace
}  // namespace mha2mla::test
