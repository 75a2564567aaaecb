#include "compare.hpp"

#include <algorithm>
#include <iterator>

#include "mha2mla/error.hpp"

namespace mha2mla {
namespace {

Shape shape(const CalibrationStats& s) { return {s.layers, s.heads, s.kv_heads, s.pairs}; }

/// Spearman's ρ = 1 - 6 Σ d² / (n (n² - 1)); the ranks of a head have no ties.
double spearman(const PairRanks& a, const PairRanks& b, std::int64_t layer, std::int64_t head, std::int64_t pairs) {
    if (pairs < 2) return 1;
    double squares = 0;
    for (std::int64_t k = 0; k < pairs; ++k) {
        const double difference = int{a.rank(layer, head, k)} - int{b.rank(layer, head, k)};
        squares += difference * difference;
    }
    const auto n = static_cast<double>(pairs);
    return 1 - 6 * squares / (n * (n * n - 1));
}

std::vector<std::int64_t> without(const std::vector<std::int64_t>& a, const std::vector<std::int64_t>& b) {
    std::vector<std::int64_t> rest;
    std::set_difference(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(rest));
    return rest;
}

}  // namespace

double jaccard(const std::vector<std::int64_t>& a, const std::vector<std::int64_t>& b) {
    std::vector<std::int64_t> both;
    std::set_intersection(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(both));
    const std::size_t either = a.size() + b.size() - both.size();
    return either == 0 ? 1.0 : static_cast<double>(both.size()) / static_cast<double>(either);
}

Comparison compare(const NamedStats& source, const PairRanks& ranks, std::int64_t rope_dim, NamedStats other) {
    const ModelConfig config = shape_of(other);
    if (shape(source.stats) != shape(other.stats)) {
        throw Error(ErrorCode::usage, "cannot compare " + source.name + " with " + other.name +
                                          ": [layers, heads, KV heads, pairs] is " + to_string(shape(source.stats)) +
                                          " and " + to_string(shape(other.stats)) +
                                          "; both must come from models of the same shape");
    }
    Comparison result;
    result.ranks = two_norm_ranks(other.stats);
    result.other = std::move(other);
    result.layers.resize(static_cast<std::size_t>(config.num_hidden_layers), {0, {}});
    const auto heads = config.num_key_value_heads;
    for (std::int64_t r = 1; r <= config.num_pairs(); ++r) {
        const RopeOptions options{"2-norm", 2 * r, 0};
        const RopeSelection before = select_rope(config, options, &ranks);
        const RopeSelection after = select_rope(config, options, &result.ranks);
        for (std::int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
            const auto at = static_cast<std::size_t>(layer);
            double sum = 0;
            for (std::int64_t head = 0; head < heads; ++head) {
                const auto& a = before.pairs[at][static_cast<std::size_t>(head)];
                const auto& b = after.pairs[at][static_cast<std::size_t>(head)];
                sum += jaccard(a, b);
                if (2 * r == rope_dim && a != b) {
                    result.changes.push_back({layer, head, without(a, b), without(b, a)});
                }
            }
            result.layers[at].jaccard.push_back(sum / static_cast<double>(heads));
        }
    }
    for (std::int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
        for (std::int64_t head = 0; head < heads; ++head) {
            result.layers[static_cast<std::size_t>(layer)].spearman +=
                spearman(ranks, result.ranks, layer, head, config.num_pairs()) / static_cast<double>(heads);
        }
    }
    return result;
}

}  // namespace mha2mla
