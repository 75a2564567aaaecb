#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <random>

#include "rope/assignment.hpp"
#include "shared_key_cases.hpp"

namespace mha2mla::test {
namespace {

MatrixD random_values(std::int64_t rows, std::int64_t columns, std::mt19937& generator) {
    std::normal_distribution<double> normal;
    return MatrixD::NullaryExpr(rows, columns, [&] { return normal(generator); });
}

TEST(SharedKey, ValueOfARotationIsTheErrorThatItSaves) {
    const SharedKeyCase c = random_case({"GQA"});
    const std::vector<double> frequencies = {0.9, 0.3, 0.02};
    for (const std::int64_t fold : {1, 2, 3}) {
        const auto blocks = balanced_blocks(c.original, c.moments, fold);
        const auto components = components_of(blocks);
        for (const QueryTurn turn : {QueryTurn::none, QueryTurn::phase, QueryTurn::mean}) {
            const MatrixD values = rotation_values(c.original, blocks, c.moments, c.stats.attention, turn, frequencies);
            for (std::size_t column = 0; column < components.size(); ++column) {
                const SharedKeyBlock& block = blocks[static_cast<std::size_t>(components[column].block)];
                const auto error = [&](double frequency) {  // summed over distances, queries as a quadratic form
                    double sum = 0;
                    for (std::int64_t head = 0; head < c.plain.heads; ++head) {
                        const Eigen::VectorXd p = c.stats.attention.row(head) / c.stats.attention.row(head).sum();
                        const auto pair = [&](std::int64_t j) {
                            return c.original.pairs[static_cast<std::size_t>(block.first_pair + j)];
                        };
                        const auto turned = [&](std::int64_t j, Eigen::Index distance) {
                            return std::polar(1.0, static_cast<double>(distance) * (pair(j).frequency - frequency));
                        };
                        for (Eigen::Index distance = 0; distance < p.size(); ++distance) {
                            // Real coefficients of the complex number that is wrong, in terms of the head's query.
                            Eigen::VectorXd real = Eigen::VectorXd::Zero(c.plain.head_dim), imaginary = real;
                            for (std::int64_t j = 0; j < block.pairs; ++j) {
                                Complex mean = 0;
                                for (Eigen::Index other = 0; other < p.size(); ++other)
                                    mean += p(other) * turned(j, other);
                                if (turn == QueryTurn::none) mean = 1;
                                if (turn == QueryTurn::phase) mean /= std::abs(mean);
                                const std::int64_t channel = head / c.plain.group_size() * block.pairs + j;
                                const Complex w = std::conj(block.from(channel, components[column].index)) *
                                                  (turned(j, distance) - mean);
                                real(pair(j).first) = w.real(), real(pair(j).second) = -w.imag();
                                imaginary(pair(j).first) = w.imag(), imaginary(pair(j).second) = w.real();
                            }
                            const MatrixD& moment = c.moments.query[static_cast<std::size_t>(head)];
                            sum += p(distance) * (real.dot(moment * real) + imaginary.dot(moment * imaginary));
                        }
                    }
                    return sum * block.strength(components[column].index);
                };
                const double stopped = error(0);
                for (std::size_t kind = 0; kind < frequencies.size(); ++kind) {
                    EXPECT_NEAR(values(static_cast<Eigen::Index>(kind), static_cast<Eigen::Index>(column)),
                                stopped - error(frequencies[kind]), 1e-9 * (1 + stopped));
                }
            }
        }
    }
}

TEST(SharedKey, ComponentsAssignedToFixedFrequenciesServeThemBest) {
    for (unsigned seed = 0; seed < 20; ++seed) {
        std::mt19937 generator(seed);
        const MatrixD values = random_values(3, 5, generator);
        Assignment assignment(values);
        const std::vector<std::int64_t> kinds = {2, 0, 2};  // kinds may come twice
        double sum = 0;
        for (const std::int64_t kind : kinds) sum += assignment.add(kind);
        double best = -1e9;
        std::vector<std::int64_t> columns(5);
        std::iota(columns.begin(), columns.end(), 0);
        do {
            best = std::max(best, values(2, columns[0]) + values(0, columns[1]) + values(2, columns[2]));
        } while (std::next_permutation(columns.begin(), columns.end()));
        EXPECT_NEAR(sum, best, 1e-9);
        EXPECT_NEAR(assignment.sum(), best, 1e-9);
        const auto found = assignment.columns();
        EXPECT_NEAR(values(2, found[0]) + values(0, found[1]) + values(2, found[2]), best, 1e-9);
    }
}

TEST(SharedKey, SharedFrequenciesCannotBeBetteredByExchangingOne) {
    const std::vector<double> frequencies = {1, 0.5, 0.2, 0.1};
    const std::vector<double> weights = {1, 2};
    const auto kind_of = [&](double frequency) {
        return std::find(frequencies.begin(), frequencies.end(), frequency) - frequencies.begin();
    };
    for (unsigned seed = 0; seed < 20; ++seed) {
        std::mt19937 generator(seed);
        const std::vector<MatrixD> values = {random_values(4, 6, generator), random_values(4, 6, generator)};
        const auto worth = [&](const std::vector<double>& chosen) {
            double sum = 0;
            for (std::size_t layer = 0; layer < values.size(); ++layer) {
                Assignment assignment(values[layer]);
                for (const double frequency : chosen) assignment.add(kind_of(frequency));
                sum += weights[layer] * assignment.sum();
            }
            return sum;
        };
        const std::vector<double> chosen = shared_frequencies(values, weights, frequencies, 3);
        ASSERT_EQ(chosen.size(), 3U);
        EXPECT_TRUE(std::is_sorted(chosen.begin(), chosen.end(), std::greater<>()));
        for (std::size_t slot = 0; slot < 3; ++slot) {
            for (const double other : frequencies) {
                std::vector<double> exchanged = chosen;
                exchanged[slot] = other;
                EXPECT_LE(worth(exchanged), worth(chosen) + 1e-9);
            }
        }
    }
}

}  // namespace
}  // namespace mha2mla::test
