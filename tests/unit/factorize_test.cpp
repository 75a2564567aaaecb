#include "mha2mla/factorize.hpp"

#include <Eigen/Eigenvalues>
#include <Eigen/QR>
#include <array>
#include <random>

#include "mha2mla/error.hpp"
#include "mha2mla/threads.hpp"
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
            const double error = squared_error(c.matrix, truncated_svd(c.matrix, c.rank, {sigma}));
            EXPECT_LE(std::sqrt(error), std::sqrt(optimal) * (1 + 1e-5) + 1e-6 * c.matrix.norm()) << c.name;
        }
    }
}

struct Spectrum {
    const char* name;
    double (*sigma)(int i);
    std::int64_t rank;
};

/// Shapes of spectra that weights have, and some that break float32.
constexpr std::array kSpectra = {
    Spectrum{"slow decay with outliers", [](int i) { return std::pow(1.0 + i, -0.4) * (i < 3 ? 10 - 2 * i : 1); }, 120},
    Spectrum{"fast decay", [](int i) { return std::exp(-i / 12.0); }, 150},
    Spectrum{"flat", [](int) { return 1.0; }, 100},
    Spectrum{"low rank", [](int i) { return i < 40 ? 1.0 : 0.0; }, 60},
    Spectrum{"huge outliers", [](int i) { return i < 5 ? 1e4 : std::pow(1.0 + i, -0.3); }, 120},
    Spectrum{"small rank", [](int i) { return std::pow(1.0 + i, -0.7); }, 8},
};

/// A matrix with exactly this spectrum but for rounding, larger than what is always decomposed in double.
Matrix with_spectrum(const Spectrum& spectrum, std::int64_t rows, std::int64_t cols) {
    const auto orthonormal = [](std::int64_t size, std::int64_t count, unsigned seed) {
        const Eigen::MatrixXd random = random_matrix(size, count, seed).cast<double>();
        const Eigen::HouseholderQR<Eigen::MatrixXd> qr(random);
        return Eigen::MatrixXd(qr.householderQ() * Eigen::MatrixXd::Identity(size, count));
    };
    const std::int64_t n = std::min(rows, cols);
    Eigen::MatrixXd left = orthonormal(rows, n, 31);
    for (std::int64_t i = 0; i < n; ++i) left.col(i) *= spectrum.sigma(static_cast<int>(i));
    return (left * orthonormal(cols, n, 32).transpose()).cast<float>();
}

/// Rounding the factors to float32 alone costs about this share of the matrix's energy.
constexpr double kFactorRounding = 1e-14;

TEST(TruncatedSvd, EachMethodKeepsItsPromise) {
    for (const auto& spectrum : kSpectra) {
        for (const auto& [rows, cols] : {std::pair{300, 420}, {400, 288}}) {
            const Matrix a = with_spectrum(spectrum, rows, cols);
            const Eigen::VectorXd singular = singular_values(a);
            const double optimal = singular.tail(singular.size() - spectrum.rank).squaredNorm();
            const double rounding = kFactorRounding * singular.squaredNorm();
            const auto excess = [&](const SvdOptions& options) {
                return squared_error(a, truncated_svd(a, spectrum.rank, options)) - optimal - 4 * rounding;
            };
            EXPECT_LE(excess({SigmaPlacement::balanced, SvdMethod::standard}), 1e-5 * optimal) << spectrum.name;
            EXPECT_LE(excess({SigmaPlacement::balanced, SvdMethod::strict}), 1e-9 * optimal) << spectrum.name;
            for (const double bound : {1e-1, 1e-2, 1e-3}) {
                EXPECT_LE(excess({SigmaPlacement::balanced, SvdMethod::fast, bound}), bound * optimal) << spectrum.name;
            }
        }
    }
}

TEST(TruncatedSvd, BitsDoNotDependOnTheThreads) {
    const Matrix a = with_spectrum(kSpectra[0], 600, 700);
    for (const auto method : {SvdMethod::standard, SvdMethod::strict, SvdMethod::fast}) {
        const auto with_threads = [&](int threads) {
            const ThreadScope scope(threads);
            return truncated_svd(a, 20, {SigmaPlacement::balanced, method});
        };
        const LowRank one = with_threads(1);
        for (const int threads : {2, 3, 7}) {
            const LowRank many = with_threads(threads);
            EXPECT_EQ(one.up, many.up) << threads;
            EXPECT_EQ(one.down, many.down) << threads;
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
    Matrix kv(k.rows() + v.rows(), k.cols());
    kv << k, v;
    const auto error = [&](Factorization f, const LatentWidths& widths) {
        const KvFactors factors = factorize(f, kv, k.rows(), widths, {});
        const Matrix& down_v = factors.down_v.size() > 0 ? factors.down_v : factors.down_k;
        return (k - factors.up_k * factors.down_k).squaredNorm() + (v - factors.up_v * down_v).squaredNorm();
    };
    const float joint = error(Factorization::joint, {20, 20, 20});
    EXPECT_LT(joint, error(Factorization::split, {10, 10, 20}));
}

TEST(Factorize, PartsThatAreNotFactorisedStayWhole) {
    const Matrix k = random_matrix(6, 16, 13);
    const Matrix v = random_matrix(8, 16, 14);
    Matrix kv(k.rows() + v.rows(), k.cols());
    kv << k, v;
    const auto key = factorize(Factorization::key, kv, k.rows(), {3, 0, 11}, {});
    EXPECT_EQ(key.up_v, v);
    EXPECT_EQ(key.down_v.size(), 0);
    EXPECT_EQ(key.down_k.rows(), 3);
    const auto none = factorize(Factorization::none, kv, k.rows(), {0, 0, 14}, {});
    EXPECT_EQ(none.up_k, k);
    EXPECT_EQ(none.up_v, v);
}

MatrixD moment_of(const Matrix& x) {
    return x.cast<double>().transpose() * x.cast<double>() / static_cast<double>(x.rows());
}

/// ‖x·(kv − up·down)ᵀ‖ for NoPE keys and for values.
std::pair<double, double> errors_on(const Matrix& x, const Matrix& kv, std::int64_t nope_rows, const KvFactors& f) {
    const Matrix keys = kv.topRows(nope_rows) - f.up_k * f.down_k;
    const Matrix values = kv.bottomRows(kv.rows() - nope_rows) - f.up_v * f.down_k;
    return {(x * keys.transpose()).norm(), (x * values.transpose()).norm()};
}

TEST(WhitenedSvd, WithTheIdentityItIsTheJointOne) {
    const Matrix kv = random_matrix(20, 12, 4);
    const LatentWidths widths{5, 5, 5};
    const Whitening identity(MatrixD::Identity(12, 12));
    const KvFactors joint = factorize(Factorization::joint, kv, 8, widths, {});
    const KvFactors whitened = factorize(Factorization::whitened, kv, 8, widths, {}, {.whitening = &identity});
    EXPECT_LT((whitened.up_k * whitened.down_k - joint.up_k * joint.down_k).norm(), 1e-4);
    EXPECT_LT((whitened.up_v * whitened.down_k - joint.up_v * joint.down_k).norm(), 1e-4);
}

/// The least error of any matrix of this rank, by Eckart and Young on x·kvᵀ.
TEST(WhitenedSvd, ItsErrorOnTheTextIsTheLeastThatThereIs) {
    const Matrix kv = random_matrix(40, 30, 21);
    Matrix x = random_matrix(300, 30, 22);
    for (Eigen::Index c = 0; c < x.cols(); ++c) x.col(c) *= std::exp(-0.2F * static_cast<float>(c));
    const Whitening whitening(moment_of(x));
    const LatentWidths widths{6, 6, 6};
    const KvFactors whitened = factorize(Factorization::whitened, kv, 16, widths, {}, {.whitening = &whitening});
    const auto [keys, values] = errors_on(x, kv, 16, whitened);
    const Eigen::VectorXd spectrum = singular_values(x * kv.transpose());
    const double least = spectrum.tail(spectrum.size() - 6).norm();
    EXPECT_NEAR(std::hypot(keys, values), least, 2e-3 * least);  // the ridge costs a little
    const auto [joint_keys, joint_values] = errors_on(x, kv, 16, factorize(Factorization::joint, kv, 16, widths, {}));
    EXPECT_GT(std::hypot(joint_keys, joint_values), 1.3 * least);
}

TEST(WhitenedSvd, ASingularMomentBehaves) {
    const Matrix kv = random_matrix(20, 12, 5);
    const Matrix x = random_matrix(50, 6, 6) * random_matrix(6, 12, 7);  // of rank 6
    const LatentWidths widths{4, 4, 4};
    const Whitening whitening(moment_of(x));
    const auto error = [&](const KvFactors& f) {
        const auto [keys, values] = errors_on(x, kv, 8, f);
        return std::hypot(keys, values);
    };
    const double whitened = error(factorize(Factorization::whitened, kv, 8, widths, {}, {.whitening = &whitening}));
    EXPECT_TRUE(std::isfinite(whitened));
    EXPECT_LT(whitened, 0.9 * error(factorize(Factorization::joint, kv, 8, widths, {})));
    const Whitening nothing(MatrixD::Zero(12, 12));
    EXPECT_TRUE(factorize(Factorization::whitened, kv, 8, widths, {}, {.whitening = &nothing}).down_k.allFinite());
}

TEST(WhitenedSvd, TheWeightMovesErrorBetweenKeysAndValues) {
    const Matrix kv = random_matrix(24, 16, 31);
    const Matrix x = random_matrix(100, 16, 32);
    const Whitening whitening(moment_of(x));
    double keys_before = 1e30, values_before = 0;
    for (const double weight : {0.25, 1.0, 4.0}) {
        const auto [keys, values] = errors_on(
            x, kv, 12,
            factorize(Factorization::whitened, kv, 12, {5, 5, 5}, {}, {.whitening = &whitening, .key_weight = weight}));
        EXPECT_LT(keys, keys_before) << weight;
        EXPECT_GT(values, values_before) << weight;
        keys_before = keys;
        values_before = values;
    }
    Matrix louder = kv;
    louder.topRows(12) *= 3.0F;
    EXPECT_NEAR(equal_energy_weight(whitening.apply(kv), 12) / equal_energy_weight(whitening.apply(louder), 12), 3.0,
                1e-4);
}

TEST(WhitenedSvd, WhatIsNoMomentIsRefused) {
    MatrixD bad = MatrixD::Identity(8, 8);
    bad(3, 4) = bad(4, 3) = std::nan("");
    expect_error(ErrorCode::numeric, {"second moment", "not finite"}, [&] { const Whitening whitening(bad); });
    bad = MatrixD::Identity(8, 8);
    bad(3, 4) = bad(4, 3) = 5;  // more than its diagonal allows
    expect_error(ErrorCode::numeric, {"second moment", "not positive"}, [&] { const Whitening whitening(bad); });
    const Matrix kv = random_matrix(20, 12, 4);
    expect_error(ErrorCode::usage, {"second moment"}, [&] {
        (void)factorize(Factorization::whitened, kv, 8, {5, 5, 5}, {});
    });
    const Whitening other(MatrixD::Identity(13, 13));
    expect_error(ErrorCode::usage, {"second moment"}, [&] {
        (void)factorize(Factorization::whitened, kv, 8, {5, 5, 5}, {}, {.whitening = &other});
    });
}

}  // namespace
}  // namespace mha2mla::test
