// Products on the thread, on the team and on tiles of AMX where this machine has them, against the definition in
// double.
#include "linalg/gemm.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <random>

#include "linalg/amx.hpp"
#include "mha2mla/machine.hpp"
#include "mha2mla/matrix.hpp"
#include "mha2mla/threads.hpp"
#include "support/normal_matrix.hpp"

namespace mha2mla::test {
namespace {

Factor factor_of(const Matrix& stored, bool transposed) { return {{stored.data(), stored.cols()}, transposed}; }

using Product = std::function<void(std::int64_t, std::int64_t, std::int64_t, float, const Factor&, const Factor&, float,
                                   MatrixOut)>;

constexpr std::int64_t kExtra = 3;  // numbers between two rows of an operand

/// The largest error of a sum, in the root of its products' squares.
double worst_error(const Product& product, std::int64_t m, std::int64_t n, std::int64_t k, unsigned seed) {
    const bool a_transposed = (seed & 1U) != 0, b_transposed = (seed & 2U) != 0, add = (seed & 4U) != 0;
    const float alpha = (seed & 8U) != 0 ? 0.37F : 1.0F;
    Matrix a = a_transposed ? normal_matrix(k, m + kExtra, seed) : normal_matrix(m, k + kExtra, seed);
    const Matrix b = b_transposed ? normal_matrix(n, k + kExtra, seed + 1) : normal_matrix(k, n + kExtra, seed + 1);
    Matrix c = normal_matrix(m + 1, n + kExtra, seed + 2);
    const Matrix before = c;
    product(m, n, k, alpha, factor_of(a, a_transposed), factor_of(b, b_transposed), add ? 1.0F : 0.0F,
            {c.data(), c.cols()});
    const MatrixD left =
        a_transposed ? MatrixD(a.leftCols(m).transpose().cast<double>()) : MatrixD(a.leftCols(k).cast<double>());
    const MatrixD right =
        b_transposed ? MatrixD(b.leftCols(k).transpose().cast<double>()) : MatrixD(b.leftCols(n).cast<double>());
    MatrixD wanted = static_cast<double>(alpha) * left * right;
    if (add) wanted += before.topLeftCorner(m, n).cast<double>();
    EXPECT_EQ(c.rightCols(kExtra), before.rightCols(kExtra));
    EXPECT_EQ(c.bottomRows(1), before.bottomRows(1));
    const MatrixD error = (c.topLeftCorner(m, n).cast<double>() - wanted).cwiseAbs();
    return error.maxCoeff() / std::sqrt(static_cast<double>(k));
}

void expect_products(const Product& product, double tolerance) {
    std::mt19937 random(5);
    for (unsigned seed = 0; seed < 48; ++seed) {
        const auto size = [&] { return static_cast<std::int64_t>(1 + random() % 130); };
        const std::int64_t m = size(), n = size(), k = size() + 31;
        EXPECT_LT(worst_error(product, m, n, k, seed), tolerance) << m << ' ' << n << ' ' << k << ' ' << seed;
    }
    EXPECT_LT(worst_error(product, 300, 530, 800, 0), tolerance);  // more than one part of everything
    EXPECT_LT(worst_error(product, 300, 530, 800, 7), tolerance);
}

constexpr double kSplitError = 4e-5;  // two BF16 of a factor hold 16 bits of it

Product with(ProductPrecision precision) {
    return [precision](std::int64_t m, std::int64_t n, std::int64_t k, float alpha, const Factor& a, const Factor& b,
                       float beta, MatrixOut c) { multiply(m, n, k, alpha, a, b, beta, c, precision); };
}

TEST(Gemm, OnOneThread) { expect_products(with(ProductPrecision::full), 1e-5); }
TEST(Gemm, OnOneThreadSplit) { expect_products(with(ProductPrecision::split), kSplitError); }

TEST(Gemm, OnTheTeam) {
    expect_products(
        [](std::int64_t m, std::int64_t n, std::int64_t k, float alpha, const Factor& a, const Factor& b, float beta,
           MatrixOut c) {
            Matrix scaled = Eigen::Map<const Matrix, 0, Eigen::OuterStride<>>(
                a.stored.data, a.transposed ? k : m, a.transposed ? m : k, Eigen::OuterStride<>(a.stored.stride));
            scaled *= alpha;
            team_multiply(m, n, k, factor_of(scaled, a.transposed), b, beta, c, ProductPrecision::split);
        },
        kSplitError);
}

TEST(Gemm, DoesNotDependOnTheTeam) {
    const Matrix a = normal_matrix(1490, 333, 1), b = normal_matrix(333, 1100, 2),
                 before = normal_matrix(1490, 1100, 3);
    const auto result = [&](int threads, ProductPrecision precision) {
        const ThreadScope scope(threads);
        Matrix c = before;
        team_multiply(a.rows(), b.cols(), a.cols(), factor_of(a, false), factor_of(b, false), 1, {c.data(), c.cols()},
                      precision);
        return c;
    };
    for (const auto precision : {ProductPrecision::full, ProductPrecision::split}) {
        const Matrix expected = result(1, precision);
        for (const int threads : {2, 3, 8, 30}) EXPECT_EQ(result(threads, precision), expected) << threads;
    }
}

/// Small ones too, which multiply() leaves to BLAS. Without AMX there is nothing here that OnOneThread does not test.
TEST(Gemm, OnTiles) {
    if (!has_amx()) return;
    expect_products([](std::int64_t m, std::int64_t n, std::int64_t k, float alpha, const Factor& a, const Factor& b,
                       float beta, MatrixOut c) { amx_gemm(m, n, k, alpha, a, b, beta == 1, c); },
                    kSplitError);
}

/// A weight of BF16 has no low halves, which are then left out; with them the result must be the same.
TEST(Gemm, WeightsOfBf16AreExactOnTiles) {
    if (!has_amx()) return;
    Matrix b = normal_matrix(96, 128, 1);
    for (float& value : b.reshaped()) {
        std::uint32_t bits = 0;
        std::memcpy(&bits, &value, sizeof bits);
        bits &= 0xFFFF0000U;
        std::memcpy(&value, &bits, sizeof bits);
    }
    const Matrix one = Matrix::Identity(96, 96);
    Matrix c(96, 128);
    amx_gemm(96, 128, 96, 1, factor_of(one, false), factor_of(b, false), false, {c.data(), c.cols()});
    EXPECT_EQ(c, b);
}

}  // namespace
}  // namespace mha2mla::test
