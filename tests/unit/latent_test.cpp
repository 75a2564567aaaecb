// What a layer in MLA form is made of, against definitions in double.
#include <gtest/gtest.h>

#include <Eigen/QR>
#include <algorithm>
#include <cmath>
#include <random>

#include "forward/layer.hpp"
#include "latent/build_layer.hpp"
#include "latent/factor_layer.hpp"
#include "latent/head_weights.hpp"
#include "latent/nope_phases.hpp"
#include "mha2mla/calibration.hpp"
#include "mha2mla/convert.hpp"
#include "model/head_order.hpp"
#include "rope/attention_order.hpp"
#include "support/temporary.hpp"
#include "support/tiny_model.hpp"

namespace mha2mla::test {
namespace {

constexpr std::int64_t kSeqLen = 16;
constexpr std::int64_t kHidden = 32, kHeads = 4, kKvHeads = 2, kHeadDim = 8, kVocab = 64;
constexpr std::int64_t kGroup = kHeads / kKvHeads;

TinyModel tiny() {
    return {.hidden = kHidden,
            .heads = kHeads,
            .kv_heads = kKvHeads,
            .head_dim = kHeadDim,
            .vocab = kVocab,
            .attention_bias = true};
}

const LayerPairs kPairs = {{0, 2}, {1, 3}};

Matrix random_matrix(std::int64_t rows, std::int64_t columns, unsigned seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    Matrix matrix(rows, columns);
    for (Eigen::Index i = 0; i < matrix.size(); ++i) matrix.data()[i] = normal(random);
    return matrix;
}

/// One projection of the original, in double.
struct Linear {
    MatrixD weight;
    Eigen::VectorXd bias;

    [[nodiscard]] MatrixD operator()(const MatrixD& x) const {
        return (x * weight.transpose()).rowwise() + bias.transpose();
    }
};

Linear linear_of(const LinearView& view) {
    Linear linear;
    Matrix weight(view.out_features(), view.in_features());
    to_float(*view.weight, 0, {weight.data(), static_cast<std::size_t>(weight.size())});
    linear.weight = weight.cast<double>();
    linear.bias = Eigen::VectorXd::Zero(weight.rows());
    if (view.bias != nullptr) {
        Vector bias(weight.rows());
        to_float(*view.bias, 0, {bias.data(), static_cast<std::size_t>(bias.size())});
        linear.bias = bias.cast<double>();
    }
    return linear;
}

double theta(std::int64_t pair) {
    const auto config = tiny_config(tiny());
    const double base = config.contains("rope_theta") ? config["rope_theta"].get<double>() : 10000.0;
    return std::pow(base, -2.0 * static_cast<double>(pair) / static_cast<double>(kHeadDim));
}

/// Rotates pairs of one head at a position.
Eigen::VectorXd rotated(const Eigen::VectorXd& head, std::int64_t position, const std::vector<std::int64_t>& pairs) {
    Eigen::VectorXd result = head;
    for (const std::int64_t k : pairs) {
        const std::int64_t other = k + kHeadDim / 2;
        const double angle = theta(k) * static_cast<double>(position);
        result(k) = head(k) * std::cos(angle) - head(other) * std::sin(angle);
        result(other) = head(other) * std::cos(angle) + head(k) * std::sin(angle);
    }
    return result;
}

std::vector<std::int64_t> all_pairs() { return {0, 1, 2, 3}; }

bool keeps(std::int64_t kv_head, std::int64_t row) {
    const auto& kept = kPairs[static_cast<std::size_t>(kv_head)];
    return std::binary_search(kept.begin(), kept.end(), row % (kHeadDim / 2));
}

AttentionRule plain_rule() {
    AttentionRule rule;
    rule.scale = 1 / std::sqrt(static_cast<float>(kHeadDim));
    return rule;
}

/// Softmax of one query head over what it sees. @param pairs that rotate. [kSeqLen, kSeqLen]
MatrixD attention_of(const MatrixD& q, const MatrixD& k, const std::vector<std::int64_t>& pairs,
                     const AttentionRule& rule = plain_rule()) {
    const double cap = rule.softcap;
    MatrixD attention = MatrixD::Zero(kSeqLen, kSeqLen);
    for (std::int64_t t = 0; t < kSeqLen; ++t) {
        double sum = 0;
        for (std::int64_t s = 0; s <= t; ++s) {
            if (rule.window > 0 && s <= t - rule.window) continue;
            const double logit = rule.scale * rotated(q.row(t), t, pairs).dot(rotated(k.row(s), s, pairs));
            attention(t, s) = std::exp(cap > 0 ? cap * std::tanh(logit / cap) : logit);
            sum += attention(t, s);
        }
        attention.row(t) /= sum;
    }
    return attention;
}

/// A whole attention without the output's bias, on whole sequences.
struct Attention {
    Linear q, k, v, o;
    LayerPairs pairs;  // that rotate

    [[nodiscard]] MatrixD operator()(const MatrixD& input) const {
        constexpr std::int64_t kDim = kHeadDim;
        const MatrixD queries = q(input), keys = k(input), values = v(input);
        MatrixD mixed(input.rows(), queries.cols());
        for (std::int64_t first = 0; first < input.rows(); first += kSeqLen) {
            for (std::int64_t head = 0; head < kHeads; ++head) {
                const std::int64_t kv_head = head / kGroup;
                mixed.block(first, head * kDim, kSeqLen, kDim) =
                    attention_of(queries.block(first, head * kDim, kSeqLen, kDim),
                                 keys.block(first, kv_head * kDim, kSeqLen, kDim),
                                 pairs[static_cast<std::size_t>(kv_head)]) *
                    values.block(first, kv_head * kDim, kSeqLen, kDim);
            }
        }
        return mixed * o.weight.transpose();
    }
};

Attention original_of(const Model& model) {
    const AttentionView& view = model.layer(0).original_attention();
    return {linear_of(view.q), linear_of(view.k), linear_of(view.v), linear_of(view.o), {all_pairs(), all_pairs()}};
}

class Latent : public testing::Test {
protected:
    Latent() { write_tiny_model(directory_ / "model", tiny()); }
    [[nodiscard]] Model model() const { return Model::open(directory_ / "model"); }
    /// The model with another rule of its attention, such that every part of the rule matters.
    [[nodiscard]] Model model_with_window_and_cap() const {
        Model model = this->model();
        AttentionRule& rule = model.config.rules.layers[0].attention;
        rule.scale = 0.6F;
        rule.softcap = 1.5F;
        rule.window = 5;
        return model;
    }
    TemporaryDirectory directory_;
    Observer observer_;
};

TEST_F(Latent, ALayerOfAConvertedCheckpointComputesWhatTheRuntimeDoes) {
    const Model source = model();
    std::vector<TokenId> ids(128);
    std::mt19937 random(3);
    for (auto& id : ids) id = static_cast<TokenId>(random() % static_cast<unsigned>(kVocab));
    const CalibrationStats stats =
        calibrate(source, ids, 32, observer_,
                  {.max_memory = 0, .spill_directory = {}, .inputs = CalibrationOptions::Inputs::moments});
    const Matrix input = random_matrix(2 * kSeqLen, kHidden, 1);
    for (const auto& row : kFactorizations) {
        for (const std::int64_t rope_dim : {std::int64_t{0}, std::int64_t{4}}) {
            StagedPlan stages;
            stages.rope = {"uniform", rope_dim, 0};
            stages.kv_rank = 4;
            stages.factorization = row.factorization;
            const auto path = directory_ / (std::string(row.name) + std::to_string(rope_dim));
            (void)convert(source, path, {stages}, {nullptr, stats.inputs.get()}, observer_);
            const Model converted = Model::open(path);
            const RotaryTable rotary(converted.config, kSeqLen);
            LayerWorkspace work;
            work.normed = input;
            attend(converted, 1, rotary, kSeqLen, work, {});
            Matrix expected = work.down;
            expected.rowwise() -= linear_of(converted.layer(1).latent_attention().o).bias.transpose().cast<float>();
            LatentActivations at;
            run_latent(layer_of_converted(converted, 1, kSeqLen), kSeqLen, input, at);
            EXPECT_LT((at.output - expected).norm(), 1e-5 * expected.norm()) << row.name << ' ' << rope_dim;
        }
    }
}

TEST_F(Latent, HeadWeightsAreTheMomentsOfNopeQueriesAndOfOutputProjections) {
    constexpr std::int64_t kDim = kHeadDim, kNope = kDim - 4;
    const Model source = model();
    const Attention original = original_of(source);
    const Matrix sample = random_matrix(200, kHidden, 5).array() + 0.5F;  // whose mean is not zero
    const MatrixD x = sample.cast<double>();
    const HeadWeights weights =
        head_weights(layer_of_original(source, 0, kPairs, kSeqLen), Whitening(second_moment(sample)), sample);
    // Both ridges belong to the definition: that of the inputs' moment, and that of M.
    const double ridge = Whitening::kRidge * (x.transpose() * x / 200.0).diagonal().mean();
    const auto expect_factor = [](const MatrixD& factor, MatrixD moment, std::int64_t kv_head) {
        moment.diagonal().array() += Whitening::kRidge * moment.diagonal().mean();
        EXPECT_LT((factor * factor.transpose() - moment).norm(), 1e-5 * moment.norm()) << "KV head " << kv_head;
        EXPECT_EQ(factor.triangularView<Eigen::StrictlyUpper>().toDenseMatrix().norm(), 0);
    };
    for (std::int64_t kv_head = 0; kv_head < kKvHeads; ++kv_head) {
        MatrixD key = MatrixD::Zero(kNope, kNope), value = MatrixD::Zero(kDim, kDim);
        for (std::int64_t head = kv_head * kGroup; head < (kv_head + 1) * kGroup; ++head) {
            MatrixD w(kNope, kHidden);
            Eigen::VectorXd b(kNope);
            std::int64_t next = 0;
            for (std::int64_t row = 0; row < kDim; ++row) {
                if (keeps(kv_head, row)) continue;
                w.row(next) = original.q.weight.row(head * kDim + row);
                b(next++) = original.q.bias(head * kDim + row);
            }
            ASSERT_EQ(next, kNope);
            const MatrixD q = (x * w.transpose()).rowwise() + b.transpose();
            key += q.transpose() * q / 200.0 + ridge * w * w.transpose();
            const MatrixD o = original.o.weight.middleCols(head * kDim, kDim);
            value += o.transpose() * o;
        }
        expect_factor(weights.key[static_cast<std::size_t>(kv_head)], key, kv_head);
        expect_factor(weights.value[static_cast<std::size_t>(kv_head)], value, kv_head);
    }
}

/// Pairs of a KV head, the one that needs its rotation most first, by backward elimination.
std::vector<std::int64_t> eliminated(const Model& model, const MatrixD& input, std::int64_t kv_head) {
    const Attention original = original_of(model);
    const AttentionRule& rule = model.rules(0).attention;
    const MatrixD queries = original.q(input), keys = original.k(input), values = original.v(input);
    const auto effect = [&](const std::vector<std::int64_t>& rotating) {
        double sum = 0;
        for (std::int64_t first = 0; first < input.rows(); first += kSeqLen) {
            for (std::int64_t head = kv_head * kGroup; head < (kv_head + 1) * kGroup; ++head) {
                const auto of = [&](const MatrixD& x, std::int64_t at) {
                    return MatrixD(x.block(first, at * kHeadDim, kSeqLen, kHeadDim));
                };
                const MatrixD q = of(queries, head), k = of(keys, kv_head);
                sum += ((attention_of(q, k, rotating, rule) - attention_of(q, k, all_pairs(), rule)) *
                        of(values, kv_head) * original.o.weight.middleCols(head * kHeadDim, kHeadDim).transpose())
                           .squaredNorm();
            }
        }
        return sum;
    };
    std::vector<std::int64_t> rotating = all_pairs(), order;
    while (!rotating.empty()) {
        std::int64_t best = -1;
        double least = 0;
        for (const std::int64_t pair : rotating) {
            std::vector<std::int64_t> left = rotating;
            std::erase(left, pair);
            const double now = effect(left);
            if (best < 0 || now < least) best = pair, least = now;
        }
        std::erase(rotating, best);
        order.insert(order.begin(), best);
    }
    return order;
}

TEST_F(Latent, PairsAreOrderedByWhatTheOutputLoses) {
    const Matrix sample = random_matrix(2 * kSeqLen, kHidden, 6);
    const Model plain = model(), ruled = model_with_window_and_cap();
    for (const Model* source : {&plain, &ruled}) {
        const LayerPairs orders = attention_order(*source, 0, kSeqLen, sample);
        for (const std::int64_t kv_head : {0, 1}) {
            EXPECT_EQ(orders[static_cast<std::size_t>(kv_head)], eliminated(*source, sample.cast<double>(), kv_head));
        }
    }
}

/// Compares the phases of the first layer with their definition.
void expect_least_squares(const Model& source) {
    constexpr std::int64_t kDim = kHeadDim, kHalf = kDim / 2;
    const Attention original = original_of(source);
    const Matrix sample = random_matrix(2 * kSeqLen, kHidden, 6);
    const MatrixD queries = original.q(sample.cast<double>()), keys = original.k(sample.cast<double>());
    const LatentLayer before = layer_of_original(source, 0, kPairs, kSeqLen);
    LatentLayer after = before;
    fit_nope_phases(source, 0, sample, kSeqLen, after);
    EXPECT_EQ(before.weights.q.topRows(kHeads * 4), after.weights.q.topRows(kHeads * 4));
    for (std::int64_t head = 0; head < kHeads; ++head) {
        const std::int64_t kv_head = head / kGroup;
        std::int64_t place = kHeads * 4 + head * (kDim - 4);  // of the head's first NoPE row
        for (std::int64_t pair = 0; pair < kHalf; ++pair) {
            if (keeps(kv_head, pair)) continue;
            // One equation for each visible pair of tokens: what a and b times the unrotated products give, and what
            // the rotation gave, each less its mean under the query's attention.
            MatrixD unknowns(2 * kSeqLen * kSeqLen, 2);
            Eigen::VectorXd wanted(unknowns.rows());
            unknowns.setZero();
            wanted.setZero();
            Eigen::Index row = 0;
            for (const std::int64_t first : {std::int64_t{0}, kSeqLen}) {
                const MatrixD q = queries.block(first, head * kDim, kSeqLen, kDim);
                const MatrixD k = keys.block(first, kv_head * kDim, kSeqLen, kDim);
                const MatrixD attention = attention_of(q, k, all_pairs(), source.rules(0).attention);
                for (std::int64_t t = 0; t < kSeqLen; ++t) {
                    MatrixD terms(t + 1, 3);
                    for (std::int64_t s = 0; s <= t; ++s) {
                        const Eigen::VectorXd rq = rotated(q.row(t), t, {pair}), rk = rotated(k.row(s), s, {pair});
                        terms(s, 0) = q(t, pair) * k(s, pair) + q(t, pair + kHalf) * k(s, pair + kHalf);
                        terms(s, 1) = q(t, pair) * k(s, pair + kHalf) - q(t, pair + kHalf) * k(s, pair);
                        terms(s, 2) = rq(pair) * rk(pair) + rq(pair + kHalf) * rk(pair + kHalf);
                    }
                    const Eigen::RowVectorXd a = attention.row(t).head(t + 1);
                    const Eigen::RowVectorXd mean = a * terms;
                    for (std::int64_t s = 0; s <= t; ++s, ++row) {
                        const Eigen::RowVectorXd centred = (terms.row(s) - mean) * std::sqrt(a(s));
                        unknowns.row(row) = centred.head(2);
                        wanted(row) = centred(2);
                    }
                }
            }
            const Eigen::VectorXd solution = unknowns.colPivHouseholderQr().solve(wanted);
            const Eigen::Index two = place + (kDim - 4) / 2;
            const MatrixD q1 = before.weights.q.row(place).cast<double>(),
                          q2 = before.weights.q.row(two).cast<double>();
            const double scale = q1.norm() + q2.norm();
            const MatrixD turned1 = solution(0) * q1 - solution(1) * q2, turned2 = solution(0) * q2 + solution(1) * q1;
            EXPECT_LT((after.weights.q.row(place).cast<double>() - turned1).norm(), 1e-4 * scale)
                << head << ' ' << pair;
            EXPECT_LT((after.weights.q.row(two).cast<double>() - turned2).norm(), 1e-4 * scale) << head << ' ' << pair;
            EXPECT_NEAR(after.weights.q_bias(place),
                        solution(0) * before.weights.q_bias(place) - solution(1) * before.weights.q_bias(two),
                        1e-4 * scale);
            // The slow pairs hardly turn within a sequence; the fast ones must.
            if (theta(pair) > 0.05) {
                EXPECT_GT((turned1 - q1).norm(), 1e-2 * scale) << head << ' ' << pair;
            }
            ++place;
        }
    }
}

TEST_F(Latent, PhasesAreTheLeastSquaresSolution) { expect_least_squares(model()); }

TEST_F(Latent, PhasesFollowTheRuleOfTheAttention) { expect_least_squares(model_with_window_and_cap()); }

TEST_F(Latent, TheBalanceIsThatOfTheLeastErrorOfTheOutput) {
    constexpr std::int64_t kDim = kHeadDim;
    const Model source = model();
    const Attention original = original_of(source);
    const Matrix sample = random_matrix(4 * kSeqLen, kHidden, 7);
    const MatrixD wanted = original(sample.cast<double>());
    const RotaryTable rotary(source.config, kSeqLen);
    const AttentionTarget target = original_attention(source, 0, rotary, kSeqLen, sample);
    EXPECT_LT((target.output.cast<double>() - wanted).norm(), 1e-5 * wanted.norm());

    const LatentShape shape = source.config.latent_shape(4, 3, Factorization::whitened);
    const AttentionView& view = source.layer(0).original_attention();
    const LayerRows rows = layer_rows(source, 0, kPairs);
    const Matrix kv = gather_kv(*view.k.weight, rows.key_nope, *view.v.weight);
    const Whitening whitening(second_moment(sample));
    const FactorRequest request{shape.factorization, shape.widths(), {}, {{0.05, 0.3, 1.0, 3.0, 20.0}, true}};
    const OutputTarget output{target, {kSeqLen, 2 * kSeqLen, sample.rows()}};
    const FactoredLayer found = factor_layer(layer_of_original(source, 0, kPairs, kSeqLen), "layer", kv, request,
                                             {&whitening, 1, nullptr}, &output);

    const auto error_with = [&](const KvFactors& factors) {
        Attention latent = original;
        latent.pairs = kPairs;
        const MatrixD down = factors.down_k.cast<double>();
        const MatrixD keys = factors.up_k.cast<double>() * down;
        for (std::size_t i = 0; i < rows.key_nope.size(); ++i) {
            latent.k.weight.row(rows.key_nope[i]) = keys.row(static_cast<Eigen::Index>(i));
        }
        latent.v.weight = factors.up_v.cast<double>() * down;
        return (latent(sample.cast<double>()) - wanted).squaredNorm() / static_cast<double>(wanted.size());
    };
    // Root mean squares of keys and values on the sample say what a balance of 1 is.
    const MatrixD moment = (sample.cast<double>().transpose() * sample.cast<double>()) / double(sample.rows()) +
                           Whitening::kRidge * (sample.cast<double>().squaredNorm() / double(sample.size())) *
                               MatrixD::Identity(kHidden, kHidden);
    const auto rms = [&](const MatrixD& part) {
        return std::sqrt((part * moment * part.transpose()).trace() / double(part.rows()));
    };
    const MatrixD all = kv.cast<double>();
    const double equal = rms(all.bottomRows(kKvHeads * kDim)) / rms(all.topRows(shape.nope_rows()));
    double least = std::numeric_limits<double>::infinity(), most = 0, best = 0;
    for (const double balance : {0.05, 0.3, 1.0, 3.0, 20.0, 1 / equal}) {
        const double error = error_with(factorize(shape.factorization, kv, shape.nope_rows(), shape.widths(), {},
                                                  {&whitening, balance * equal, nullptr}));
        most = std::max(most, error);
        if (error < least) {
            least = error;
            best = balance;
        }
    }
    EXPECT_GT(most, 1.05 * least) << "the balance does not matter here";
    EXPECT_NEAR(found.balance, best, 1e-5 * best);
    EXPECT_NEAR(found.error, least, 1e-4 * least);
    EXPECT_NEAR(error_with(found.factors), least, 1e-4 * least);
}

}  // namespace
}  // namespace mha2mla::test
