// Compares the vector loops with double arithmetic of the standard library.
#include "linalg/elementwise.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "support/every_target.hpp"

namespace mha2mla::test {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

class Elementwise : public EveryTarget {};
MHA2MLA_ON_EVERY_TARGET(Elementwise);

TEST_P(Elementwise, ExpIsExactToFloat) {
    std::vector<float> x;
    for (double value = -87.29; value < 88.29; value += 0.00037) x.push_back(static_cast<float>(value));
    for (float tiny = 1e-30F; tiny < 1e-3F; tiny *= 1.7F) x.insert(x.end(), {tiny, -tiny});
    x.push_back(0.0F);
    std::vector<float> y = x;
    exp_in_place(y.data(), static_cast<std::int64_t>(y.size()));
    double worst = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
        const double exact = std::exp(static_cast<double>(x[i]));
        worst = std::max(worst, std::abs(y[i] - exact) / exact);
    }
    EXPECT_LT(worst, 1.2e-7);
    EXPECT_EQ(y.back(), 1.0F);
}

TEST_P(Elementwise, ExpOutsideItsRange) {
    float x[] = {-kInfinity, -1000.0F, -87.5F, 1000.0F, kInfinity, std::numeric_limits<float>::quiet_NaN()};
    exp_in_place(x, 6);
    EXPECT_EQ(x[0], 0.0F);
    EXPECT_EQ(x[1], 0.0F);
    EXPECT_EQ(x[2], 0.0F);
    EXPECT_GT(x[3], 1e38F);
    EXPECT_EQ(x[4], x[3]);
    EXPECT_TRUE(std::isnan(x[5]));
}

TEST_P(Elementwise, EveryLengthAndNothingBeyondIt) {
    for (std::int64_t count = 0; count <= 40; ++count) {
        std::vector<float> gate, up;
        for (std::int64_t i = 0; i < count + 1; ++i) {
            gate.push_back(static_cast<float>(std::sin(3.0 * static_cast<double>(i)) * 9));
            up.push_back(static_cast<float>(std::cos(5.0 * static_cast<double>(i))));
        }
        std::vector<float> out = gate;
        silu_multiply(out.data(), up.data(), count);
        std::vector<float> normed(gate.size(), 7.0F);
        rms_norm_row(gate.data(), up.data(), 1e-5, count, normed.data());
        double squares = 0;
        for (std::int64_t i = 0; i < count; ++i) squares += std::pow(gate[static_cast<std::size_t>(i)], 2.0);
        const double norm = std::sqrt(squares / static_cast<double>(count) + 1e-5);
        for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) {
            const double g = gate[i];
            EXPECT_NEAR(out[i], g / (1 + std::exp(-g)) * up[i], 1e-6 * (1 + std::abs(g))) << count;
            EXPECT_NEAR(normed[i], g / norm * up[i], 1e-6) << count;
        }
        EXPECT_EQ(out.back(), gate.back());
        EXPECT_EQ(normed.back(), 7.0F);
    }
}

TEST_P(Elementwise, LogOfASumOfExponentials) {
    std::vector<float> x;
    for (int i = 0; i < 5000; ++i) x.push_back(static_cast<float>(20 * std::sin(0.7 * i) - 100 + 0.001 * i));
    for (const std::size_t count : {1U, 3U, 7U, 8U, 9U, 63U, 64U, 65U, 100U, 5000U}) {
        double sum = 0;
        for (std::size_t i = 0; i < count; ++i) sum += std::exp(static_cast<double>(x[i]));
        EXPECT_NEAR(log_sum_exp(x.data(), static_cast<std::int64_t>(count)), std::log(sum), 2e-7) << count;
    }
    for (const std::size_t bad : {0U, 63U, 4999U}) {
        std::vector<float> broken = x;
        broken[bad] = std::numeric_limits<float>::quiet_NaN();
        EXPECT_TRUE(std::isnan(log_sum_exp(broken.data(), 5000))) << bad;
        broken[bad] = -kInfinity;
        EXPECT_TRUE(std::isfinite(log_sum_exp(broken.data(), 5000))) << bad;
    }
}

TEST_P(Elementwise, SoftmaxInPiecesIsTheSoftmax) {
    std::vector<float> logits;
    for (int i = 0; i < 101; ++i) logits.push_back(static_cast<float>(30 * std::sin(0.7 * i) + 0.3 * i));
    const double top = *std::max_element(logits.begin(), logits.end());
    double total = 0;
    for (const float logit : logits) total += std::exp(logit - top);
    for (const std::size_t cut : {1U, 8U, 50U, 100U}) {
        std::vector<float> row = logits;
        float maximum = -kInfinity;
        float sum = 0;
        EXPECT_EQ(softmax_piece(row.data(), static_cast<std::int64_t>(cut), maximum, sum), 0.0F);
        const float factor = softmax_piece(row.data() + cut, static_cast<std::int64_t>(row.size() - cut), maximum, sum);
        EXPECT_EQ(maximum, static_cast<float>(top));
        EXPECT_NEAR(sum, total, 1e-6 * total);
        for (std::size_t i = 0; i < row.size(); ++i) {
            const double expected = std::exp(logits[i] - top) / total;
            EXPECT_NEAR(row[i] * (i < cut ? factor : 1.0F) / sum, expected, 1e-6);
        }
    }
}

}  // namespace
}  // namespace mha2mla::test
