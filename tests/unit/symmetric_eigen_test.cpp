// Eigenvectors of symmetric matrices, against LAPACK's eigenvalues and against what eigenvectors are.
#include <gtest/gtest.h>
#include <lapacke.h>

#include <Eigen/QR>
#include <cmath>
#include <functional>
#include <limits>
#include <random>

#include "../../src/linalg/blas.hpp"
#include "../../src/linalg/symmetric_eigen.hpp"
#include "mha2mla/threads.hpp"
#include "support/expect_error.hpp"

namespace mha2mla {
namespace {

/// A symmetric matrix with these eigenvalues, or what it is itself.
struct Case {
    const char* name;
    MatrixD matrix;
};

MatrixD random_matrix(std::int64_t rows, std::int64_t columns) {
    std::mt19937 random(1);
    std::normal_distribution<double> normal;
    return MatrixD::NullaryExpr(rows, columns, [&] { return normal(random); });
}

MatrixD with_spectrum(std::int64_t n, const std::function<double(std::int64_t)>& value) {
    const Eigen::HouseholderQR<Eigen::MatrixXd> qr(random_matrix(n, n));
    const Eigen::MatrixXd q = qr.householderQ();
    const Eigen::VectorXd values = Eigen::VectorXd::NullaryExpr(n, [&](Eigen::Index i) { return value(i); });
    return q * values.asDiagonal() * q.transpose();
}

std::vector<Case> cases(std::int64_t n) {
    const MatrixD any = random_matrix(n, n);
    const MatrixD thin = random_matrix(n, std::max<std::int64_t>(1, n / 3));
    return {
        {"random", any + any.transpose()},
        {"identity", MatrixD::Identity(n, n)},
        {"zero", MatrixD::Zero(n, n)},
        {"low rank", thin * thin.transpose()},
        {"graded", with_spectrum(n, [](auto i) { return std::pow(0.9, static_cast<double>(i)); })},
        {"clusters",
         with_spectrum(n, [](auto i) { return i % 2 == 0 ? 1.0 : 3.0 + 1e-7 * static_cast<double>(i % 5); })},
        {"large", with_spectrum(n, [](auto i) { return 1e15 * std::pow(1.0 + static_cast<double>(i), -0.8); })},
        {"small", with_spectrum(n, [](auto i) { return 1e-17 * std::pow(0.99, static_cast<double>(i)); })},
    };
}

template <typename Real>
class LeadingEigenvectors : public testing::Test {};
using Reals = testing::Types<float, double>;
TYPED_TEST_SUITE(LeadingEigenvectors, Reals);

TYPED_TEST(LeadingEigenvectors, AreOrthonormalAndTheirValuesAreThoseOfADriverInDouble) {
    using Real = TypeParam;
    constexpr double kUnit = std::numeric_limits<Real>::epsilon();
    for (const std::int64_t n : {1, 2, 3, 40, 300}) {
        for (const auto& [name, matrix] : cases(n)) {
            SCOPED_TRACE(std::string(name) + ", n = " + std::to_string(n));
            const RowMajor<Real> rounded = matrix.template cast<Real>();
            const MatrixD exact = rounded.template cast<double>();
            std::vector<Real> upper(static_cast<std::size_t>(n * n), std::numeric_limits<Real>::max());
            for (std::int64_t i = 0; i < n; ++i) {
                for (std::int64_t j = i; j < n; ++j) upper[static_cast<std::size_t>(i * n + j)] = rounded(i, j);
            }
            const std::int64_t count = std::max<std::int64_t>(1, n / 3);
            const auto found = leading_eigenvectors(upper, n, count);

            MatrixD driver = exact.template triangularView<Eigen::Upper>();
            std::vector<double> values(static_cast<std::size_t>(n));
            ASSERT_EQ(LAPACKE_dsyevd(LAPACK_ROW_MAJOR, 'N', 'U', static_cast<lapack_int>(n), driver.data(),
                                     static_cast<lapack_int>(n), values.data()),
                      0);
            const double norm = std::max({std::abs(values.front()), std::abs(values.back()), 1e-300});
            for (std::int64_t i = 0; i < n; ++i) {
                ASSERT_NEAR(found.values[static_cast<std::size_t>(i)], values[static_cast<std::size_t>(n - 1 - i)],
                            100 * kUnit * norm);
            }
            const MatrixD v = found.vectors.template cast<double>();
            ASSERT_EQ(v.rows(), count);
            EXPECT_LT((v * v.transpose() - MatrixD::Identity(count, count)).cwiseAbs().maxCoeff(), 50 * kUnit);
            const MatrixD symmetric = exact.template selfadjointView<Eigen::Upper>();
            MatrixD residual = v * symmetric;
            for (std::int64_t row = 0; row < count; ++row) {
                residual.row(row) -= v.row(row) * static_cast<double>(found.values[static_cast<std::size_t>(row)]);
            }
            EXPECT_LT(residual.cwiseAbs().maxCoeff(), 30 * kUnit * norm);
        }
    }
}

TEST(LeadingEigenvectors, DoNotDependOnTheThreads) {
    const MatrixD a = random_matrix(600, 600);
    const Matrix gram = (a * a.transpose()).cast<float>();
    const auto with = [&](int count) {
        const ThreadScope threads(count);
        std::vector<float> matrix(gram.data(), gram.data() + gram.size());
        return leading_eigenvectors(matrix, 600, 580).vectors;
    };
    EXPECT_EQ(with(1), with(3));
}

TEST(LeadingEigenvectors, OfWhatIsNotANumberAreAnError) {
    std::vector<float> matrix(9, std::numeric_limits<float>::quiet_NaN());
    test::expect_error(ErrorCode::numeric, {"eigenvalue decomposition failed"},
                       [&] { (void)leading_eigenvectors(matrix, 3, 1); });
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
