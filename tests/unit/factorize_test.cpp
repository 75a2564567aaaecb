#include "mha2mla/factorize.hpp"

#include <Eigen/Eigenvalues>
#include <random>

#include "mha2mla/error.hpp"
#include "support/expect_error.hpp"

namespace mha2mla::test {
namespace {

Matrix random_matrix(std::int64_t rows, std::int64_t cols, unsigned seed) {
    std::mt19937 generator(seed);
    std::normal_distribution<float> normal;
    return Matrix::NullaryExpr(rows, cols, [&] { return normal(generator); });
}

/// All singular values, falling, by Eigen's own eigenvalue solver.
Eigen::VectorXd singular_values(const Matrix& a) {
    const Eigen::MatrixXd b = a.cast<double>();
    const Eigen::MatrixXd gram =
        b.rows() < b.cols() ? Eigen::MatrixXd(b * b.transpose()) : Eigen::MatrixXd(b.transpose() * b);
    const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> solver(gram, Eigen::EigenvaluesOnly);
    return solver.eigenvalues().reverse().cwiseMax(0).cwiseSqrt();
}

double squared_error(const Matrix& a, const LowRank& svd) {
    return (a.cast<double>() - svd.up.cast<double>() * svd.down.cast<double>()).squaredNorm();
}

struct Case {
    const char* name;
    Matrix matrix;
    std::int64_t rank;
};

std::vector<Case> cases() {
    Matrix decaying = random_matrix(60, 90, 3);
    for (Eigen::Index i = 0; i < decaying.rows(); ++i) decaying.row(i) *= std::pow(0.8F, static_cast<float>(i));
    return {
        {"wide", random_matrix(40, 100, 1), 10},     {"tall", random_matrix(100, 40, 2), 10},
        {"square", random_matrix(64, 64, 4), 63},    {"decaying", decaying, 20},
        {"one row", random_matrix(1, 30, 5), 1},     {"one column", random_matrix(30, 1, 6), 1},
        {"full rank", random_matrix(20, 30, 7), 20},
    };
}

TEST(TruncatedSvd, ErrorIsTheTailOfTheSpectrum) {  // Eckart-Young, with Eigen as the judge
    for (const auto& c : cases()) {
        const Eigen::VectorXd spectrum = singular_values(c.matrix);
        const double optimal = spectrum.tail(spectrum.size() - c.rank).squaredNorm();
        for (const auto sigma : {SigmaPlacement::balanced, SigmaPlacement::up, SigmaPlacement::down}) {
            for (const auto& [precision, excess] : {std::pair{SvdPrecision::f64, 1e-5}, {SvdPrecision::f32, 1e-3}}) {
                const double error = squared_error(c.matrix, truncated_svd(c.matrix, c.rank, {sigma, precision}));
                EXPECT_LE(std::sqrt(error), std::sqrt(optimal) * (1 + excess) + 1e-6 * c.matrix.norm()) << c.name;
            }
        }
    }
}

TEST(TruncatedSvd, SigmaGoesWhereItIsSent) {
    for (const auto& c : cases()) {
        const Eigen::VectorXf singular = singular_values(c.matrix).head(c.rank).cast<float>();
        const auto up = truncated_svd(c.matrix, c.rank, {SigmaPlacement::up});
        const auto down = truncated_svd(c.matrix, c.rank, {SigmaPlacement::down});
        const auto balanced = truncated_svd(c.matrix, c.rank, {SigmaPlacement::balanced});
        EXPECT_TRUE(up.up.colwise().norm().transpose().isApprox(singular, 1e-4F)) << c.name;
        EXPECT_TRUE(down.down.rowwise().norm().isApprox(singular, 1e-4F)) << c.name;
        EXPECT_TRUE(balanced.up.colwise().norm().transpose().isApprox(singular.cwiseSqrt(), 1e-4F)) << c.name;
        EXPECT_TRUE(balanced.down.rowwise().norm().isApprox(singular.cwiseSqrt(), 1e-4F)) << c.name;
        EXPECT_TRUE((up.down * up.down.transpose()).isIdentity(1e-4F)) << c.name;
    }
}

TEST(TruncatedSvd, DegenerateMatricesBehave) {
    const Matrix zero = Matrix::Zero(8, 12);
    const auto of_zero = truncated_svd(zero, 3, {SigmaPlacement::balanced});
    EXPECT_TRUE(of_zero.up.allFinite() && of_zero.down.allFinite());
    EXPECT_EQ(squared_error(zero, of_zero), 0.0);
    const Matrix constant = Matrix::Constant(9, 6, 2.5F);
    EXPECT_LT(squared_error(constant, truncated_svd(constant, 1, {SigmaPlacement::up})), 1e-8);
    const Matrix deficient = random_matrix(30, 4, 8) * random_matrix(4, 50, 9);
    const auto svd = truncated_svd(deficient, 10, {SigmaPlacement::balanced});
    EXPECT_TRUE(svd.up.allFinite() && svd.down.allFinite());
    EXPECT_LT(squared_error(deficient, svd), 1e-8 * deficient.squaredNorm());
}

TEST(TruncatedSvd, ExtremeWeightsLoseNothing) {
    const Matrix a = random_matrix(20, 30, 21);
    const LowRank plain = truncated_svd(a, 7, {});
    for (const float scale : {0x1p-70F, 0x1p+70F}) {
        for (const auto sigma : {SigmaPlacement::balanced, SigmaPlacement::up, SigmaPlacement::down}) {
            const LowRank scaled = truncated_svd(a * scale, 7, {sigma});
            EXPECT_TRUE((scaled.up * (1 / std::sqrt(scale)) * (scaled.down * (1 / std::sqrt(scale))))
                            .isApprox(plain.up * plain.down, 1e-4F));
            EXPECT_NEAR(scaled.retained_energy / scaled.total_energy, plain.retained_energy / plain.total_energy, 1e-5);
        }
    }
}

TEST(TruncatedSvd, RefusesImpossibleRanksAndNaN) {
    const Matrix a = random_matrix(5, 7, 1);
    expect_error(ErrorCode::usage, {"rank 6", "from 1 to 5"}, [&] { (void)truncated_svd(a, 6, {SigmaPlacement::up}); });
    expect_error(ErrorCode::usage, {"rank 0"}, [&] { (void)truncated_svd(a, 0, {SigmaPlacement::up}); });
    Matrix bad = a;
    bad(2, 3) = std::numeric_limits<float>::quiet_NaN();
    expect_error(ErrorCode::numeric, {"not finite"}, [&] { (void)truncated_svd(bad, 2, {SigmaPlacement::up}); });
}

TEST(Factorize, JointIsNeverWorseThanSplitAtTheSameWidth) {
    const Matrix k = random_matrix(24, 48, 11);
    const Matrix v = random_matrix(32, 48, 12);
    const auto error = [&](Factorization f, const LatentWidths& widths) {
        const KvFactors factors = factorize(f, k, v, widths, {});
        const Matrix& down_v = factors.down_v.size() > 0 ? factors.down_v : factors.down_k;
        return (k - factors.up_k * factors.down_k).squaredNorm() + (v - factors.up_v * down_v).squaredNorm();
    };
    const float joint = error(Factorization::joint, {20, 20, 20});
    EXPECT_LT(joint, error(Factorization::split, {10, 10, 20}));
}

TEST(Factorize, PartsThatAreNotFactorisedStayWhole) {
    const Matrix k = random_matrix(6, 16, 13);
    const Matrix v = random_matrix(8, 16, 14);
    const auto key = factorize(Factorization::key, k, v, {3, 0, 11}, {});
    EXPECT_EQ(key.up_v, v);
    EXPECT_EQ(key.down_v.size(), 0);
    EXPECT_EQ(key.down_k.rows(), 3);
    const auto none = factorize(Factorization::none, k, v, {0, 0, 14}, {});
    EXPECT_EQ(none.up_k, k);
    EXPECT_EQ(none.up_v, v);
}

}  // namespace
}  // namespace mha2mla::test
