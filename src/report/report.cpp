#include "mha2mla/report.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>

#include "compare.hpp"
#include "mha2mla/error.hpp"
#include "mha2mla/plan.hpp"

namespace mha2mla {
namespace {

double total(std::span<const double> scores) { return std::accumulate(scores.begin(), scores.end(), 0.0); }

/// Adds one KV head to the means of its layer. The pairs of a head whose scores are all zero count as equal.
void add_concentration(std::span<const double> scores, double weight, LayerSummary& summary) {
    std::vector<double> share(scores.begin(), scores.end());
    const double sum = total(scores);
    for (double& value : share) value = sum > 0 ? value / sum : 1.0 / static_cast<double>(share.size());
    std::sort(share.begin(), share.end(), std::greater<>());
    const auto count = static_cast<double>(share.size());
    double held = 0;
    double entropy = 0;
    double below = 0;  // Σ (2i - n - 1) x_i of the ascending values, i from 1
    for (std::size_t i = 0; i < share.size(); ++i) {
        held += share[i];
        summary.top_share[i] += weight * std::min(1.0, held);
        if (share[i] > 0) entropy -= share[i] * std::log(share[i]);
        below += (count - 1 - 2 * static_cast<double>(i)) * share[i];
    }
    summary.gini += weight * below / count;
    summary.effective_pairs += weight * std::exp(entropy);
}

/// Checks the scores: the norms of a damaged file may be finite although their products are not.
void check_finite(const Report& report, const std::string& name) {
    for (std::int64_t layer = 0; layer < report.shape.num_hidden_layers; ++layer) {
        for (std::int64_t head = 0; head < report.shape.num_key_value_heads; ++head) {
            if (std::isfinite(total(report.head_scores(layer, head)))) continue;
            throw Error(ErrorCode::numeric, name + ": the scores of layer " + std::to_string(layer) + ", KV head " +
                                                std::to_string(head) + " are too large for a double; calibrate again");
        }
    }
}

/// The pairs that each strategy keeps, for the strategies whose ranks are present.
std::vector<RopeSelection> select_all(const Report& report, std::int64_t r) {
    std::vector<RopeSelection> kept;
    for (const auto& strategy : rope_strategies()) {
        const auto order = report.orders.find(strategy.name);
        if (strategy.goes_by_order() && order == report.orders.end()) continue;
        const PairRanks& ranks = strategy.goes_by_order() ? order->second : report.ranks;
        kept.push_back(select_rope(report.shape, {std::string(strategy.name), 2 * r, 0}, &ranks));
    }
    return kept;
}

void add_agreement(const std::vector<RopeSelection>& kept, std::size_t kv_heads, std::vector<LayerSummary>& layers) {
    for (std::size_t layer = 0; layer < layers.size(); ++layer) {
        auto& table = layers[layer].agreement.emplace_back();
        for (const auto& a : kept) {
            for (const auto& b : kept) {
                double sum = 0;
                for (std::size_t head = 0; head < kv_heads; ++head) {
                    sum += jaccard(a.pairs[layer][head], b.pairs[layer][head]);
                }
                table.push_back(sum / static_cast<double>(kv_heads));
            }
        }
    }
}

}  // namespace

double wavelength(double theta) { return 2 * std::numbers::pi / theta; }

ModelConfig shape_of(const NamedStats& stats) {
    const auto& s = stats.stats;
    const std::string shape = to_string(Shape{s.layers, s.heads, s.kv_heads, s.pairs});
    if (s.layers < 1 || s.heads < 1 || s.kv_heads < 1 || s.pairs < 1) {
        throw Error(ErrorCode::format, stats.name + ": the statistics are empty: [layers, heads, KV heads, pairs] is " +
                                           shape + "; calibrate again");
    }
    if (s.pairs > 256) {
        throw Error(ErrorCode::unsupported, stats.name +
                                                ": a head has more than 256 rotary pairs: [layers, heads, KV "
                                                "heads, pairs] is " +
                                                shape);
    }
    ModelConfig config;
    config.num_hidden_layers = s.layers;
    config.num_attention_heads = s.heads;
    config.num_key_value_heads = s.kv_heads;
    config.head_dim = 2 * s.pairs;
    return config;
}

std::int64_t report_rope_dim(const ModelConfig& shape, std::int64_t asked) {
    if (asked == 0) return default_rope_dim(shape);
    if (asked < 2 || asked > shape.head_dim || asked % 2 != 0) {
        throw Error(ErrorCode::usage, "rope-dim must be an even number from 2 to head_dim (" +
                                          std::to_string(shape.head_dim) + "), not " + std::to_string(asked));
    }
    return asked;
}

RopeSelection report_selection(const NamedStats& stats, std::int64_t rope_dim) {
    const PairRanks ranks = two_norm_ranks(stats.stats);
    return select_rope(shape_of(stats), {"2-norm", rope_dim, 0}, &ranks);
}

std::span<const double> Report::head_scores(std::int64_t layer, std::int64_t kv_head) const {
    const std::int64_t pairs = shape.num_pairs();
    return std::span(scores).subspan(static_cast<std::size_t>((layer * shape.num_key_value_heads + kv_head) * pairs),
                                     static_cast<std::size_t>(pairs));
}

Report make_report(NamedStats source, ReportOptions options) {
    Report report;
    report.shape = shape_of(source);
    report.rope_dim = report_rope_dim(report.shape, options.rope_dim);
    report.scores = source.stats.scores();
    check_finite(report, source.name);
    report.ranks = two_norm_ranks(source.stats);
    for (const RopeStrategy& strategy : rope_strategies()) {
        if (!strategy.goes_by_order() || !source.stats.orders.contains(strategy.order.statistic)) continue;
        report.orders.emplace(strategy.name, ranks_for(strategy, source.stats));
    }
    const std::int64_t pairs = report.shape.num_pairs();
    const std::int64_t kv_heads = report.shape.num_key_value_heads;
    report.layers.resize(static_cast<std::size_t>(report.shape.num_hidden_layers));
    for (std::size_t layer = 0; layer < report.layers.size(); ++layer) {
        report.layers[layer].top_share.resize(static_cast<std::size_t>(pairs));
        for (std::int64_t head = 0; head < kv_heads; ++head) {
            add_concentration(report.head_scores(static_cast<std::int64_t>(layer), head),
                              1.0 / static_cast<double>(kv_heads), report.layers[layer]);
        }
    }
    for (std::int64_t r = 1; r <= pairs; ++r) {
        auto kept = select_all(report, r);
        add_agreement(kept, static_cast<std::size_t>(kv_heads), report.layers);
        if (2 * r == report.rope_dim) report.kept = std::move(kept);
    }
    for (const auto& spectra : options.spectra) {
        report.retained.push_back(retained_energies(report.shape, report.rope_dim, spectra));
    }
    if (options.other) report.comparison = compare(source, report.ranks, report.rope_dim, std::move(*options.other));
    report.source = std::move(source);
    report.frequencies = std::move(options.frequencies);
    report.spectra = std::move(options.spectra);
    return report;
}

}  // namespace mha2mla
