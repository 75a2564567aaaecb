#include <gtest/gtest.h>

#include <Eigen/LU>
#include <algorithm>
#include <cmath>

#include "shared_key_cases.hpp"
#include "support/expect_error.hpp"

namespace mha2mla::test {
namespace {

double relative_error(const MatrixD& got, const MatrixD& wanted) { return (got - wanted).norm() / wanted.norm(); }

/// Without what softmax does not see.
MatrixD centred_rows(const MatrixD& logits) { return logits.colwise() - logits.rowwise().mean(); }

TEST(SharedKey, IsTheOriginalWhenAllComponentsRotateAndTheRankIsFull) {
    for (const SharedKeyShape& shape : shared_key_shapes()) {
        const SharedKeyCase c = random_case(shape);
        const ChosenSharedKey chosen = choose(c, {1, shape.kv_heads * shape.head_dim});
        const SharedKeyLayer layer = factorized(c, chosen.map, full_rank(c, chosen.map)).layer;
        std::vector<MatrixD> logits;
        for (std::int64_t head = 0; head < shape.heads; ++head) {
            logits.push_back(original_logits(c, head));
            EXPECT_LT(relative_error(shared_logits(layer, c.inputs, head), logits.back()), 1e-5) << shape.name;
        }
        EXPECT_LT(relative_error(shared_output(layer, c.inputs), original_output(c, logits)), 1e-5) << shape.name;
    }
}

/// Logits of the original whose components turn at their slots' frequencies or not at all, by complex numbers.
MatrixD defined_logits(const SharedKeyCase& c, const ChosenSharedKey& chosen, QueryTurn turn, std::int64_t head) {
    const OriginalAttention& layer = c.original;
    const std::int64_t dim = layer.head_dim, tokens = c.inputs.rows(), kv_head = head / layer.group_size();
    const MatrixD q = projected(c.inputs, layer.q, layer.q_bias), k = projected(c.inputs, layer.k, layer.k_bias);
    const Eigen::VectorXd p = c.stats.attention.row(head).transpose() / c.stats.attention.row(head).sum();
    MatrixD logits = MatrixD::Zero(tokens, tokens);
    for (std::size_t number = 0; number < chosen.blocks.size(); ++number) {
        const SharedKeyBlock& block = chosen.blocks[number];
        const MatrixC from = block.to.inverse();
        for (std::int64_t component = 0; component < from.cols(); ++component) {
            double frequency = 0;
            for (const SharedKeySlot& slot : chosen.slots) {
                const bool here = slot.component.block == static_cast<std::int64_t>(number);
                if (here && slot.component.index == component) frequency = slot.frequency;
            }
            for (std::int64_t t = 0; t < tokens; ++t) {
                Complex query = 0;
                for (std::int64_t j = 0; j < block.pairs; ++j) {
                    const HeadPair& pair = layer.pairs[static_cast<std::size_t>(block.first_pair + j)];
                    Complex mean = 0;
                    for (Eigen::Index distance = 0; distance < p.size(); ++distance) {
                        mean +=
                            p(distance) * std::polar(1.0, static_cast<double>(distance) * (pair.frequency - frequency));
                    }
                    if (turn == QueryTurn::none) mean = 1;
                    if (turn == QueryTurn::phase) mean /= std::abs(mean);
                    query += std::conj(from(kv_head * block.pairs + j, component)) * mean *
                             Complex(q(t, head * dim + pair.first), q(t, head * dim + pair.second));
                }
                for (std::int64_t s = 0; s < tokens; ++s) {
                    Complex key = 0;
                    for (std::int64_t channel = 0; channel < from.rows(); ++channel) {
                        const HeadPair& pair =
                            layer.pairs[static_cast<std::size_t>(block.first_pair + channel % block.pairs)];
                        const std::int64_t row = channel / block.pairs * dim;
                        key += block.to(component, channel) * Complex(k(s, row + pair.first), k(s, row + pair.second));
                    }
                    const Complex turned = key * std::polar(1.0, static_cast<double>(s - t) * frequency);
                    logits(t, s) += (std::conj(query) * turned).real();
                }
            }
        }
    }
    return logits / std::sqrt(static_cast<double>(dim));
}

TEST(SharedKey, ComponentsOutsideTheRopeKeyStopRotating) {
    const std::vector<SharedKeyChoice> choices = {
        {1, 6}, {2, 4, QueryTurn::none}, {3, 6, QueryTurn::phase}, {2, 6, QueryTurn::mean, true}};
    for (const SharedKeyShape& shape : shared_key_shapes()) {
        const SharedKeyCase c = random_case(shape);
        for (const SharedKeyChoice& choice : choices) {
            const ChosenSharedKey chosen = choose(c, choice);
            for (const KeyWeighting weighting : {KeyWeighting::rms, KeyWeighting::moment}) {
                const SharedKeyLayer layer = factorized(c, chosen.map, full_rank(c, chosen.map), 1, weighting).layer;
                ASSERT_EQ(layer.rope_dim(), choice.rope_dim);
                std::vector<MatrixD> defined;
                for (std::int64_t head = 0; head < shape.heads; ++head) {
                    defined.push_back(defined_logits(c, chosen, choice.turn, head));
                    const MatrixD got = centred_rows(shared_logits(layer, c.inputs, head));
                    EXPECT_LT(relative_error(got, centred_rows(defined.back())), 2e-5)
                        << shape.name << ", fold " << choice.fold;
                }
                EXPECT_LT(relative_error(shared_output(layer, c.inputs), original_output(c, defined)), 2e-5)
                    << shape.name << ", fold " << choice.fold;
            }
        }
    }
}

TEST(SharedKey, BasisIsInvertibleAndBalanced) {
    for (const SharedKeyShape& shape : shared_key_shapes()) {
        const SharedKeyCase c = random_case(shape);
        for (const std::int64_t fold : {1, 2, 3}) {
            // Without factors queries times keys of all components are those of the head's own KV head.
            const ChosenSharedKey chosen = choose(c, {fold, 4, QueryTurn::none});
            const std::int64_t all = shape.kv_heads * shape.head_dim;
            const MatrixD keys = chosen.map.map_keys(MatrixD::Identity(all, all));
            for (std::int64_t head = 0; head < shape.heads; ++head) {
                MatrixD wanted = MatrixD::Zero(shape.head_dim, all);
                wanted.middleCols(head / c.plain.group_size() * shape.head_dim, shape.head_dim).setIdentity();
                EXPECT_LT((chosen.map.query_map(head).transpose() * keys - wanted).norm(), 1e-9) << shape.name;
            }
            // Mean squares of the components, from the inputs themselves.
            const MatrixD k = projected(c.inputs, c.original.k, c.original.k_bias) * keys.transpose();
            const MatrixD q = projected(c.inputs, c.original.q, c.original.q_bias);
            Eigen::VectorXd key_energy = k.colwise().squaredNorm(), query_energy = Eigen::VectorXd::Zero(all);
            for (std::int64_t head = 0; head < shape.heads; ++head) {
                const MatrixD mapped =
                    q.middleCols(head * shape.head_dim, shape.head_dim) * chosen.map.query_map(head).transpose();
                query_energy += mapped.colwise().squaredNorm().transpose();
            }
            std::vector<double> energies, strengths;
            for (std::int64_t row = 0; row < all; ++row) {
                const bool real = row < 2 || (row >= 4 && row < 4 + (all - 4) / 2);
                if (!real) continue;
                const std::int64_t other = row < 4 ? row + 2 : row + (all - 4) / 2;
                const double keys_have = key_energy(row) + key_energy(other);
                const double queries_have = query_energy(row) + query_energy(other);
                EXPECT_NEAR(keys_have / queries_have, 1, 1e-3) << shape.name << ", fold " << fold;
                energies.push_back(keys_have / static_cast<double>(c.inputs.rows()));
            }
            for (const SharedKeyBlock& block : chosen.blocks) {
                for (const double strength : block.strength) strengths.push_back(strength);
            }
            std::sort(energies.begin(), energies.end());
            std::sort(strengths.begin(), strengths.end());
            ASSERT_EQ(energies.size(), strengths.size());
            for (std::size_t i = 0; i < energies.size(); ++i) EXPECT_NEAR(energies[i] / strengths[i], 1, 1e-3);
        }
    }
}

TEST(SharedKey, NonFiniteWeightsAreRefused) {
    SharedKeyCase c = random_case({"GQA"});
    c.original.k(0, 0) = std::nanf("");
    expect_error(ErrorCode::numeric, {"not finite"},
                 [&] { static_cast<void>(query_key_moments(c.original, c.stats)); });
}

TEST(SharedKey, ImpossibleSizesNameThoseThatArePossible) {
    const SharedKeyCase c = random_case({"GQA"});
    expect_error(ErrorCode::usage, {"choose from 1 to 4"},
                 [&] { static_cast<void>(balanced_blocks(c.original, c.moments, 5)); });
    expect_error(ErrorCode::usage, {"this model has 16"}, [&] { static_cast<void>(choose(c, {1, 18})); });
    expect_error(ErrorCode::usage, {"this model has 16"}, [&] {
        static_cast<void>(choose(c, {1, 18, QueryTurn::mean, true}));
    });
    const ChosenSharedKey chosen = choose(c, {1, 4});
    expect_error(ErrorCode::usage, {"choose from 1 to 28"}, [&] { static_cast<void>(factorized(c, chosen.map, 29)); });
}

}  // namespace
}  // namespace mha2mla::test
