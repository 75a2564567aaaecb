#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>

#include "formats.hpp"

namespace mha2mla {
namespace {

constexpr int kDigits = 4;
constexpr std::size_t kCurvePoints = 128;  // points per spectrum; more would not be visible in the figure

/// Writes JSON as text, because nlohmann::json would write all digits of a double.
class Writer {
public:
    void number(double value) {
        char text[32];
        out_.append(text, std::to_chars(text, text + sizeof text, value, std::chars_format::general, kDigits).ptr);
    }
    void number(std::int64_t value) { out_ += std::to_string(value); }
    void raw(std::string_view text) { out_ += text; }
    /// Starts a member: `,"name":`, or `{"name":` for the first one.
    void key(std::string_view name) {
        out_ += out_.empty() ? "{\"" : ",\"";
        out_ += name;
        out_ += "\":";
    }
    template <typename Items, typename Write>
    void list(const Items& items, const Write& write) {
        out_ += '[';
        bool first = true;
        for (const auto& item : items) {
            if (!first) out_ += ',';
            first = false;
            write(item);
        }
        out_ += ']';
    }
    template <typename Items>
    void numbers(const Items& items) {
        list(items, [this](const auto& item) { this->number(item); });
    }
    [[nodiscard]] std::string finish() { return std::move(out_) + '}'; }

private:
    std::string out_;
};

std::vector<std::int64_t> pair_ranks(const PairRanks& ranks) {
    std::vector<std::int64_t> flat;
    for (std::int64_t layer = 0; layer < ranks.layers; ++layer) {
        for (std::int64_t head = 0; head < ranks.kv_heads; ++head) {
            for (std::int64_t k = 0; k < ranks.head_dim / 2; ++k) flat.push_back(ranks.rank(layer, head, k));
        }
    }
    return flat;
}

/// The strategies. One without ranks keeps the same pairs in every head: `kept[r - 1]`. The others keep the pairs of
/// rank < r, by the ranks of 2-norm unless they have ranks of their own.
void write_strategies(Writer& out, const Report& report) {
    std::vector<std::int64_t> counts;
    for (std::int64_t r = 1; r <= report.shape.num_pairs(); ++r) counts.push_back(r);
    out.list(report.kept, [&](const RopeSelection& selection) {
        const RopeStrategy& strategy = find_rope_strategy(selection.strategy);
        out.raw("{\"name\":" + nlohmann::json(std::string(strategy.name)).dump() + ",\"kept\":");
        if (strategy.needs_ranks()) {
            out.raw("null");
            if (strategy.goes_by_order()) {
                out.key("ranks");
                out.numbers(pair_ranks(report.orders.at(selection.strategy)));
            }
            out.raw("}");
            return;
        }
        out.list(counts, [&](std::int64_t r) {
            out.numbers(strategy.select(report.shape, {std::string(strategy.name), 2 * r, 0}, nullptr, 0, 0));
        });
        out.raw("}");
    });
}

/// [[index from 1, σ/σ_1], ...] at evenly spaced indices including the first and the last. Zeros are omitted because
/// the scale is logarithmic.
void write_curve(Writer& out, const Spectrum& spectrum) {
    std::vector<std::size_t> at;
    const std::size_t size = spectrum.values.size();
    const std::size_t points = std::min(size, kCurvePoints);
    for (std::size_t i = 0; i < points; ++i) {
        const std::size_t index = points < 2 ? 0 : i * (size - 1) / (points - 1);
        if (spectrum.values[index] > 0) at.push_back(index);
    }
    out.list(at, [&](std::size_t index) {
        out.raw("[" + std::to_string(index + 1) + ",");
        out.number(spectrum.values[index] / spectrum.values.front());
        out.raw("]");
    });
}

void write_spectra(Writer& out, const Report& report) {
    out.list(report.spectra, [&](const LayerSpectra& layer) {
        out.raw("{\"joint\":");
        write_curve(out, layer.joint);
        out.raw(",\"key\":");
        write_curve(out, layer.key_nope);
        out.raw(",\"value\":");
        write_curve(out, layer.value);
        out.raw("}");
    });
    out.key("retained");
    out.list(report.retained, [&](const std::vector<RetainedEnergy>& layer) {
        out.list(layer, [&](const RetainedEnergy& row) {
            out.raw("[" + std::to_string(row.kv_rank) + ",");
            out.number(row.joint);
            out.raw(",");
            out.number(row.split);
            out.raw("]");
        });
    });
}

}  // namespace

std::string page_data(const Report& report) {
    const auto& stats = report.source.stats;
    Writer out;
    for (const auto& [name, value] : {std::pair{"layers", stats.layers},
                                      {"heads", stats.heads},
                                      {"kvHeads", stats.kv_heads},
                                      {"pairs", stats.pairs},
                                      {"ropeDim", report.rope_dim}}) {
        out.key(name);
        out.number(value);
    }
    out.key("theta");
    out.numbers(report.frequencies.theta);
    out.key("strategies");
    write_strategies(out, report);
    out.key("scores");
    out.numbers(report.scores);
    out.key("ranks");
    out.numbers(pair_ranks(report.ranks));
    out.key("queryNorms");
    out.numbers(stats.mean_query_norm);
    out.key("keyNorms");
    out.numbers(stats.mean_key_norm);
    out.key("gini");
    out.list(report.layers, [&](const LayerSummary& layer) { out.number(layer.gini); });
    out.key("effectivePairs");
    out.list(report.layers, [&](const LayerSummary& layer) { out.number(layer.effective_pairs); });
    out.key("topShare");
    out.list(report.layers, [&](const LayerSummary& layer) { out.numbers(layer.top_share); });
    out.key("agreement");
    out.list(report.layers, [&](const LayerSummary& layer) {
        out.list(layer.agreement, [&](const std::vector<double>& table) { out.numbers(table); });
    });
    if (!report.spectra.empty()) {
        out.key("spectra");
        write_spectra(out, report);
    }
    if (report.comparison) {
        out.key("otherRanks");
        out.numbers(pair_ranks(report.comparison->ranks));
        out.key("spearman");
        out.list(report.comparison->layers, [&](const LayerComparison& layer) { out.number(layer.spearman); });
        out.key("jaccard");
        out.list(report.comparison->layers, [&](const LayerComparison& layer) { out.numbers(layer.jaccard); });
    }
    return out.finish();
}

}  // namespace mha2mla
