#include <gtest/gtest.h>

#include <Eigen/Eigenvalues>

#include "shared_key_cases.hpp"

namespace mha2mla::test {
namespace {

TEST(SharedKey, ErrorOfATruncatedLatentIsTheTailOfItsSpectrum) {
    for (const SharedKeyShape& shape : shared_key_shapes()) {
        const SharedKeyCase c = random_case(shape);
        const ChosenSharedKey chosen = choose(c, {2, 4});
        const MatrixD centred = centred_moment(c.stats);
        const MatrixD keys = chosen.map.map_keys(c.original.k.cast<double>()).bottomRows(chosen.map.nope_rows());
        const std::int64_t dim = shape.head_dim;
        // How much an error of keys or values counts, by what heads make of it: Σ E (q·error·x)², Σ E ‖W_o·error·x‖².
        const auto key_gram = [&](const auto& error) {
            MatrixD gram = MatrixD::Zero(shape.hidden, shape.hidden);
            for (std::int64_t head = 0; head < shape.heads; ++head) {
                const MatrixD e = error(head);
                gram += e.transpose() * c.moments.query[static_cast<std::size_t>(head)] * e;
            }
            return gram;
        };
        const auto value_gram = [&](const auto& error) {
            MatrixD gram = MatrixD::Zero(shape.hidden, shape.hidden);
            for (std::int64_t head = 0; head < shape.heads; ++head) {
                const MatrixD e = c.plain.o.middleCols(head * dim, dim).cast<double>() * error(head);
                gram += e.transpose() * e;
            }
            return gram;
        };
        const auto key_of = [&](std::int64_t head) {
            return MatrixD(chosen.map.query_map(head).bottomRows(keys.rows()).transpose() * keys);
        };
        const auto value_of = [&](std::int64_t head) {
            return MatrixD(c.plain.v.middleRows(head / c.plain.group_size() * dim, dim).cast<double>());
        };
        const double balance = 1.7;
        const MatrixD key_energy = key_gram(key_of), value_energy = value_gram(value_of);
        const double weight = balance * balance * (value_energy * centred).trace() / (key_energy * centred).trace();
        const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> root(centred);
        const Eigen::MatrixXd half = root.operatorSqrt();
        const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> spectrum(half * (weight * key_energy + value_energy) *
                                                                      half);
        for (const std::int64_t rank : {3, 8}) {
            const auto result = factorized(c, chosen.map, rank, balance);
            const double tail = spectrum.eigenvalues().head(shape.hidden - rank).sum();
            EXPECT_NEAR((result.total_energy - result.retained_energy) / tail, 1, 5e-3) << shape.name;
            const SharedKeyLayer& layer = result.layer;
            const auto lost = [&](const Matrix& up, const auto& of) {
                return [&](std::int64_t head) {
                    return MatrixD(of(head) -
                                   up.middleRows(head * dim, dim).cast<double>() * layer.down.cast<double>());
                };
            };
            const double error = weight * (key_gram(lost(layer.up_k, key_of)) * centred).trace() +
                                 (value_gram(lost(layer.up_v, value_of)) * centred).trace();
            EXPECT_NEAR(error / tail, 1, 5e-3) << shape.name;
            const MatrixD latent = layer.down.cast<double>() * centred * layer.down.cast<double>().transpose();
            EXPECT_LT((latent - MatrixD::Identity(rank, rank)).norm(), 5e-3) << "channels of unit variance";
        }
    }
}

TEST(SharedKey, DegenerateKeysAndShortTextsStayFinite) {
    const auto run = [](SharedKeyCase c, const char* name) {
        SCOPED_TRACE(name);
        c.moments = query_key_moments(c.original, c.stats);
        for (const bool engine : {false, true}) {
            for (const std::int64_t fold : {1, 2, 4}) {
                const ChosenSharedKey chosen = choose(c, {fold, 8, QueryTurn::mean, engine});
                const SharedKeyLayer layer = factorized(c, chosen.map, 8).layer;
                for (const Matrix* matrix : {&layer.q_rope, &layer.k_rope, &layer.down, &layer.up_k, &layer.up_v}) {
                    EXPECT_TRUE(matrix->allFinite()) << name << ", fold " << fold;
                }
                EXPECT_TRUE(shared_output(layer, c.inputs).allFinite()) << name;
            }
        }
    };
    const SharedKeyCase whole = random_case({"MHA", 4, 4, 8, 40, true});
    SharedKeyCase c = whole;
    c.plain.k.topRows(8).setZero();
    c.plain.k_bias.head(8).setZero();
    c.original = c.plain;
    run(c, "a head of zero keys");
    c.plain.k.setZero();
    c.plain.k_bias.setZero();
    c.original = c.plain;
    run(c, "no keys");
    c = whole;
    c.plain.q.setZero();
    c.plain.q_bias.setZero();
    c.original = c.plain;
    run(c, "no queries");
    c = whole;
    c.plain.v.setZero();
    c.original = c.plain;
    run(c, "no values");
    c = whole;
    c.plain.k.middleRows(8, 8) = c.plain.k.topRows(8);
    c.plain.k_bias.segment(8, 8) = c.plain.k_bias.head(8);
    c.original = c.plain;
    run(c, "two heads alike");
    c = whole;
    c.inputs = c.inputs.topRows(3).eval();
    c.stats = stats_of(c);
    run(c, "fewer tokens than channels");
    c.inputs = MatrixD(c.inputs.row(0).replicate(3, 1));
    c.stats = stats_of(c);
    run(c, "tokens alike");
    c.inputs = c.inputs.topRows(1).eval();
    c.stats = stats_of(c);
    run(c, "one token, which is the first");
}

}  // namespace
}  // namespace mha2mla::test
