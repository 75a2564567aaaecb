#include "shared_key_slots.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>

#include "../support/parallel.hpp"
#include "assignment.hpp"
#include "mha2mla/error.hpp"

namespace mha2mla {
namespace {

void check_count(std::int64_t slots, std::int64_t components) {
    if (slots > components) {
        throw Error(ErrorCode::usage, "a rope key of " + std::to_string(2 * slots) +
                                          " numbers is not possible; this model has " + std::to_string(2 * components));
    }
}

/// E zzᴴ of a head's queries over the block's pairs.
MatrixC query_moment(const MatrixD& moment, const std::vector<HeadPair>& pairs, const SharedKeyBlock& block) {
    MatrixC result(block.pairs, block.pairs);
    for (std::int64_t i = 0; i < block.pairs; ++i) {
        const HeadPair& a = pairs[static_cast<std::size_t>(block.first_pair + i)];
        for (std::int64_t j = 0; j < block.pairs; ++j) {
            const HeadPair& b = pairs[static_cast<std::size_t>(block.first_pair + j)];
            result(i, j) = {moment(a.first, b.first) + moment(a.second, b.second),
                            moment(a.second, b.first) - moment(a.first, b.second)};
        }
    }
    return result;
}

/// E (turn_i − a_i)·conj(turn_j − a_j), where `turn` are unit numbers of which `together` holds E turn_i·conj(turn_j)
/// and `mean` holds E turn_i.
MatrixC error_moment(const MatrixC& together, const Eigen::VectorXcd& mean, QueryTurn turn) {
    const Eigen::VectorXcd a = mean.unaryExpr([turn](std::complex<double> r) { return query_factor(r, turn); });
    return together - mean * a.adjoint() - a * mean.adjoint() + a * a.adjoint();
}

constexpr double kRounding = 1e-9;  // of values, relatively

std::int64_t nearest(const std::vector<double>& frequencies, double wanted) {
    const auto closer = [wanted](double a, double b) { return std::abs(a - wanted) < std::abs(b - wanted); };
    return std::min_element(frequencies.begin(), frequencies.end(), closer) - frequencies.begin();
}

/// What the best assignments of all layers sum up to, and how to add to them.
class AllLayers {
public:
    AllLayers(const std::vector<MatrixD>& values, const std::vector<double>& weights) : weights_(weights) {
        for (const MatrixD& of_layer : values) layers_.emplace_back(of_layer);
    }
    double add(std::int64_t kind) {
        double grown = 0;
        for (std::size_t layer = 0; layer < layers_.size(); ++layer)
            grown += weights_[layer] * layers_[layer].add(kind);
        return grown;
    }
    double add(const std::vector<std::int64_t>& kinds) {
        double grown = 0;
        for (const std::int64_t kind : kinds) grown += add(kind);
        return grown;
    }

private:
    std::vector<Assignment> layers_;
    std::vector<double> weights_;
};

/// The candidate with the largest value, the first of equals.
template <typename Value>
std::int64_t best_of(std::int64_t candidates, const Value& value) {
    std::vector<double> found(static_cast<std::size_t>(candidates));
    parallel_for(candidates, [&](std::int64_t candidate, std::vector<float>&) {
        found[static_cast<std::size_t>(candidate)] = value(candidate);
    });
    return std::max_element(found.begin(), found.end()) - found.begin();
}

}  // namespace

MatrixD rotation_values(const OriginalAttention& layer, const std::vector<SharedKeyBlock>& blocks,
                        const QueryKeyMoments& moments, const MatrixD& attention, QueryTurn turn,
                        const std::vector<double>& frequencies) {
    std::vector<double> turning = frequencies;
    turning.push_back(0);
    const std::vector<MatrixC> means = mean_turns(layer.pairs, attention, turning);
    std::vector<double> own;
    for (const HeadPair& pair : layer.pairs) own.push_back(pair.frequency);
    const std::vector<MatrixC> together = mean_turns(layer.pairs, attention, own);
    std::vector<std::int64_t> first_column;
    std::int64_t columns = 0;
    for (const SharedKeyBlock& block : blocks) {
        first_column.push_back(columns);
        columns += block.strength.size();
    }
    const auto kinds = static_cast<std::int64_t>(turning.size());
    MatrixD errors = MatrixD::Zero(kinds, columns);
    parallel_for(static_cast<std::int64_t>(blocks.size()), [&](std::int64_t number, std::vector<float>&) {
        const SharedKeyBlock& block = blocks[static_cast<std::size_t>(number)];
        auto to = errors.middleCols(first_column[static_cast<std::size_t>(number)], block.strength.size());
        for (std::int64_t head = 0; head < layer.heads; ++head) {
            const MatrixC moment = query_moment(moments.query[static_cast<std::size_t>(head)], layer.pairs, block);
            const std::size_t row = means.size() == 1 ? 0 : static_cast<std::size_t>(head);
            const MatrixC pairs_together =
                together[row].block(block.first_pair, block.first_pair, block.pairs, block.pairs);
            const MatrixC from = block.from.middleRows(head / layer.group_size() * block.pairs, block.pairs);
            for (std::int64_t kind = 0; kind < kinds; ++kind) {
                const Eigen::VectorXcd mean = means[row].col(kind).segment(block.first_pair, block.pairs);
                const MatrixC error = moment.cwiseProduct(error_moment(pairs_together, mean, turn));
                to.row(kind) += from.conjugate().cwiseProduct(error * from).colwise().sum().real();
            }
        }
        to = to * block.strength.asDiagonal();
    });
    MatrixD values(kinds - 1, columns);
    for (std::int64_t kind = 0; kind + 1 < kinds; ++kind) values.row(kind) = errors.row(kinds - 1) - errors.row(kind);
    return values;
}

std::vector<double> frequencies_of(const std::vector<HeadPair>& pairs) {
    std::vector<double> result;
    for (const HeadPair& pair : pairs) result.push_back(pair.frequency);
    std::sort(result.begin(), result.end(), std::greater<>());
    result.erase(std::unique(result.begin(), result.end()), result.end());
    return result;
}

std::vector<SharedKeySlot> free_slots(const std::vector<HeadPair>& pairs, const std::vector<SharedKeyBlock>& blocks,
                                      const MatrixD& values, const std::vector<double>& frequencies,
                                      std::int64_t count) {
    check_count(count, values.cols());
    const std::vector<SharedKeyComponent> components = components_of(blocks);
    struct Candidate {
        double value;
        std::int64_t column, kind;
    };
    std::vector<Candidate> candidates;
    for (std::int64_t column = 0; column < values.cols(); ++column) {
        const SharedKeyBlock& block =
            blocks[static_cast<std::size_t>(components[static_cast<std::size_t>(column)].block)];
        const double middle = pairs[static_cast<std::size_t>(block.first_pair + block.pairs / 2)].frequency;
        Candidate best{0, column, nearest(frequencies, middle)};
        best.value = values(best.kind, column);
        const double rounding = kRounding * values.col(column).cwiseAbs().maxCoeff();
        for (std::int64_t kind = 0; kind < values.rows(); ++kind) {
            if (values(kind, column) > best.value + rounding) best = {values(kind, column), column, kind};
        }
        candidates.push_back(best);
    }
    std::stable_sort(candidates.begin(), candidates.end(),
                     [](const Candidate& a, const Candidate& b) { return a.value > b.value; });
    candidates.resize(static_cast<std::size_t>(count));
    std::stable_sort(candidates.begin(), candidates.end(),
                     [](const Candidate& a, const Candidate& b) { return a.kind < b.kind; });
    std::vector<SharedKeySlot> slots;
    for (const Candidate& candidate : candidates) {
        slots.push_back({components[static_cast<std::size_t>(candidate.column)],
                         frequencies[static_cast<std::size_t>(candidate.kind)]});
    }
    return slots;
}

std::vector<SharedKeySlot> fixed_slots(const std::vector<SharedKeyBlock>& blocks, const MatrixD& values,
                                       const std::vector<double>& frequencies) {
    check_count(values.rows(), values.cols());
    Assignment assignment(values);
    for (std::int64_t kind = 0; kind < values.rows(); ++kind) assignment.add(kind);
    const std::vector<SharedKeyComponent> components = components_of(blocks);
    std::vector<SharedKeySlot> slots;
    for (const std::int64_t column : assignment.columns()) {
        slots.push_back({components[static_cast<std::size_t>(column)], frequencies[slots.size()]});
    }
    return slots;
}

std::vector<double> shared_frequencies(const std::vector<MatrixD>& values, const std::vector<double>& weights,
                                       const std::vector<double>& frequencies, std::int64_t count) {
    const auto kinds = static_cast<std::int64_t>(frequencies.size());
    for (const MatrixD& of_layer : values) check_count(count, of_layer.cols());
    std::vector<std::int64_t> chosen;
    AllLayers sums(values, weights);
    double total = 0;
    for (std::int64_t i = 0; i < count; ++i) {
        const std::int64_t kind = best_of(kinds, [&](std::int64_t candidate) {
            AllLayers with = sums;
            return with.add(candidate);
        });
        total += sums.add(kind);
        chosen.push_back(kind);
    }
    for (bool better = true; better;) {
        better = false;
        for (std::int64_t& slot : chosen) {
            std::vector<std::int64_t> others;
            for (const std::int64_t& other : chosen) {
                if (&other != &slot) others.push_back(other);
            }
            AllLayers without(values, weights);
            const double left = without.add(others);
            const std::int64_t kind = best_of(kinds, [&](std::int64_t candidate) {
                AllLayers with = without;
                return with.add(candidate);
            });
            const double changed = left + without.add(kind);
            if (changed <= total + kRounding * std::abs(total)) continue;
            slot = kind;
            total = changed;
            better = true;
        }
    }
    std::vector<double> result;
    for (const std::int64_t kind : chosen) result.push_back(frequencies[static_cast<std::size_t>(kind)]);
    std::sort(result.begin(), result.end(), std::greater<>());
    return result;
}

}  // namespace mha2mla
