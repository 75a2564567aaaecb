// Eigenvectors of symmetric matrices, against LAPACK's eigenvalues and against what eigenvectors are.
#include <gtest/gtest.h>
#include <lapacke.h>
#include <omp.h>

#include <cmath>
#include <functional>
#include <limits>
#include <random>

#include "../../src/linalg/blas.hpp"
#include "../../src/linalg/tridiagonal_eigen.hpp"
#include "mha2mla/threads.hpp"

namespace mha2mla {
namespace {

struct Case {
    const char* name;
    std::function<double(int)> diagonal, beside;
};

std::vector<Case> cases(std::int64_t n) {
    auto random = std::make_shared<std::mt19937>(1);
    auto normal = std::make_shared<std::normal_distribution<double>>();
    const auto any = [=](int) { return (*normal)(*random); };
    return {
        {"random", any, any},
        {"constant", [](int) { return 2.0; }, [](int) { return -1.0; }},
        {"identity", [](int) { return 1.0; }, [](int) { return 0.0; }},
        {"zero", [](int) { return 0.0; }, [](int) { return 0.0; }},
        {"Wilkinson", [n](int i) { return std::abs(i - double(n) / 2); }, [](int) { return 1.0; }},
        {"low rank", [=](int i) { return i < n / 3 ? any(i) : 0.0; }, [=](int i) { return i < n / 3 ? any(i) : 1e-9; }},
        {"large", [](int i) { return 1e15 * std::pow(1 + i, -0.8); },
         [](int i) { return 1e14 * std::pow(1 + i, -0.8); }},
        {"small", [](int i) { return 1e-17 * std::pow(0.99, i); }, [](int i) { return 1e-18 * std::pow(0.99, i); }},
        {"clusters", [](int i) { return i % 2; }, [](int i) { return i % 7 == 0 ? 1.0 : 0.0; }},
    };
}

template <typename Real>
class TridiagonalEigen : public testing::Test {};
using Reals = testing::Types<float, double>;
TYPED_TEST_SUITE(TridiagonalEigen, Reals);

TYPED_TEST(TridiagonalEigen, VectorsAreOrthonormalAndValuesAreLapacks) {
    using Real = TypeParam;
    constexpr double kUnit = std::numeric_limits<Real>::epsilon();
    for (const std::int64_t n : {1, 2, 3, 512, 513, 1100}) {
        for (const auto& [name, diagonal, beside] : cases(n)) {
            SCOPED_TRACE(std::string(name) + ", n = " + std::to_string(n));
            std::vector<Real> d, e;
            for (int i = 0; i < n; ++i) {
                d.push_back(static_cast<Real>(diagonal(i)));
                e.push_back(static_cast<Real>(beside(i)));
            }
            const std::int64_t count = std::max<std::int64_t>(1, n / 3);
            const auto found = leading_tridiagonal_eigenvectors(d, e, count);
            std::vector<double> values(d.begin(), d.end()), off(e.begin(), e.end());
            ASSERT_EQ(LAPACKE_dsterf(static_cast<lapack_int>(n), values.data(), off.data()), 0);
            const double norm = std::max({std::abs(values.front()), std::abs(values.back()), 1e-300});
            for (std::int64_t i = 0; i < n; ++i) {
                ASSERT_NEAR(found.values[static_cast<std::size_t>(i)], values[static_cast<std::size_t>(n - 1 - i)],
                            1000 * kUnit * norm);
            }
            const MatrixD v = found.vectors.template cast<double>();
            EXPECT_LT((v * v.transpose() - MatrixD::Identity(count, count)).cwiseAbs().maxCoeff(), 50 * kUnit);
            MatrixD residual(count, n);
            for (std::int64_t i = 0; i < n; ++i) {
                const auto at = static_cast<std::size_t>(i);
                residual.col(i) = v.col(i) * static_cast<double>(d[at]);
                if (i > 0) residual.col(i) += v.col(i - 1) * static_cast<double>(e[at - 1]);
                if (i + 1 < n) residual.col(i) += v.col(i + 1) * static_cast<double>(e[at]);
                for (std::int64_t row = 0; row < count; ++row) {
                    residual(row, i) -= v(row, i) * static_cast<double>(found.values[static_cast<std::size_t>(row)]);
                }
            }
            EXPECT_LT(residual.cwiseAbs().maxCoeff(), 30 * kUnit * norm);
        }
    }
}

TEST(Gemm, EqualsTheDefinitionForEveryLayoutAndEdge) {
    std::mt19937 random(2);
    std::normal_distribution<float> normal;
    const auto filled = [&](std::int64_t rows, std::int64_t columns) {
        return Matrix(Matrix::NullaryExpr(rows, columns, [&] { return normal(random); }));
    };
    const std::int64_t sizes[][3] = {{12, 32, 16}, {13, 33, 17}, {11, 40, 300}, {200, 513, 700}, {50, 31, 257}};
    for (const auto& [m, n, k] : sizes) {
        for (const bool trans_a : {false, true}) {
            for (const bool trans_b : {false, true}) {
                const Matrix a = trans_a ? filled(k, m) : filled(m, k);
                const Matrix b = trans_b ? filled(n, k) : filled(k, n);
                const Matrix before = filled(m, n);
                const MatrixD left = trans_a ? MatrixD(a.cast<double>().transpose()) : MatrixD(a.cast<double>());
                const MatrixD right = trans_b ? MatrixD(b.cast<double>().transpose()) : MatrixD(b.cast<double>());
                const MatrixD wanted = 0.5 * left * right + 2 * before.cast<double>();
                Matrix c = before;
                gemm(trans_a ? CblasTrans : CblasNoTrans, trans_b ? CblasTrans : CblasNoTrans, m, n, k, 0.5F, a.data(),
                     a.cols(), b.data(), b.cols(), 2.0F, c.data(), n);
                EXPECT_LT((c.cast<double>() - wanted).cwiseAbs().maxCoeff(), 1e-4) << m << " x " << n << " x " << k;
            }
        }
    }
}

TEST(Gemm, DoesNotReadTheResultWithoutBeta) {
    const Matrix a = Matrix::Ones(30, 40), b = Matrix::Ones(40, 50);
    Matrix c = Matrix::Constant(30, 50, std::numeric_limits<float>::quiet_NaN());
    gemm(CblasNoTrans, CblasNoTrans, 30, 50, 40, 1.0F, a.data(), 40, b.data(), 50, 0.0F, c.data(), 50);
    EXPECT_EQ(c, Matrix::Constant(30, 50, 40.0F));
}

TEST(Syrk, FillsTheUpperTriangle) {
    std::mt19937 random(3);
    std::normal_distribution<float> normal;
    const Matrix a = Matrix::NullaryExpr(150, 70, [&] { return normal(random); });
    const MatrixD wanted = a.cast<double>() * a.cast<double>().transpose();
    Matrix c = Matrix::Zero(150, 150);
    syrk(CblasNoTrans, 150, 70, 1.0F, a.data(), 70, 0.0F, c.data(), 150);
    const MatrixD difference = c.cast<double>() - wanted;
    EXPECT_LT(MatrixD(difference.triangularView<Eigen::Upper>()).cwiseAbs().maxCoeff(), 1e-4);
}

}  // namespace
}  // namespace mha2mla
