#pragma once
/// The per-head 2-norms of a statistics file, put so that people can read them: which rotary pairs matter, which of
/// them each selection keeps, and how much a latent of each width would lose.

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "mha2mla/calibration.hpp"
#include "mha2mla/rope.hpp"
#include "mha2mla/spectrum.hpp"

namespace mha2mla {

/// θ_k of every rotary pair, and who says so.
struct RotaryFrequencies {
    std::vector<double> theta;  // [pairs], radians per token; empty: unknown
    std::string source;         // for people: "config.json of ./model"
};
/// Tokens of one turn: 2π/θ.
[[nodiscard]] double wavelength(double theta);

/// A statistics file under the name that people know it by.
struct NamedStats {
    std::string name;
    CalibrationStats stats;
};

struct ReportOptions {
    std::int64_t rope_dim = 0;  // d_r that the kept pairs are shown for; 0: head_dim/8, at least 2
    RotaryFrequencies frequencies;
    std::vector<LayerSpectra> spectra;  // of the pairs that report_selection() keeps; empty: not measured
    std::optional<NamedStats> other;    // to compare with
};

/// How unevenly the scores of a layer fall on its pairs, as means over its KV heads, and how far the selections agree.
struct LayerSummary {
    double gini = 0;             // 0: all pairs the same, towards 1: one pair has everything
    double effective_pairs = 0;  // exp of the entropy of the scores: from 1 to the number of pairs
    /// Share of the scores that the r largest hold, for r from 1. [pairs]
    std::vector<double> top_share;
    /// |A ∩ B| / |A ∪ B| of the pairs that two strategies keep, for r from 1. [pairs][strategies * strategies]
    std::vector<std::vector<double>> agreement;
};

/// One layer's ranks against those of another statistics file, as means over its KV heads.
struct LayerComparison {
    double spearman = 1;
    std::vector<double> jaccard;  // of the r pairs that 2-norm keeps by each, for r from 1. [pairs]
};

/// A KV head that keeps other pairs by the other statistics.
struct KeptChange {
    std::int64_t layer = 0, kv_head = 0;
    std::vector<std::int64_t> leaving;   // kept by these statistics alone
    std::vector<std::int64_t> entering;  // kept by the other ones alone
};

struct Comparison {
    NamedStats other;
    PairRanks ranks;
    std::vector<LayerComparison> layers;
    std::vector<KeptChange> changes;  // at the report's rope_dim
};

/// Everything that a report says, before it has a format.
struct Report {
    NamedStats source;
    ModelConfig shape;  // layers, heads and head_dim of the statistics; nothing else is set
    std::int64_t rope_dim = 0;
    RotaryFrequencies frequencies;
    std::vector<double> scores;       // [layers, kv_heads, pairs]
    PairRanks ranks;                  // of the scores, as 2-norm selects by them
    PairRanks attention_ranks;        // empty where the statistics have none
    std::vector<RopeSelection> kept;  // at rope_dim, by each row of rope_strategies() that the statistics allow
    std::vector<LayerSummary> layers;
    std::vector<LayerSpectra> spectra;                  // [layers] or empty
    std::vector<std::vector<RetainedEnergy>> retained;  // [layers], each for the same widths; or empty
    std::optional<Comparison> comparison;

    /// Of a KV head, [pairs].
    [[nodiscard]] std::span<const double> head_scores(std::int64_t layer, std::int64_t kv_head) const;
};

/// The shape of the model that statistics were taken from, as far as a selection needs it.
/// @throws Error{format} if there is no layer, head or pair, Error{unsupported} for more than 256 pairs.
[[nodiscard]] ModelConfig shape_of(const NamedStats& stats);

/// `asked`, or the default of this shape if that is 0.
/// @throws Error{usage} if it is odd or not from 2 to head_dim.
[[nodiscard]] std::int64_t report_rope_dim(const ModelConfig& shape, std::int64_t asked);

/// The pairs that 2-norm keeps by these statistics: what layer_spectra() needs for a report.
[[nodiscard]] RopeSelection report_selection(const NamedStats& stats, std::int64_t rope_dim);

/// @throws Error{format} and Error{unsupported} as shape_of(), Error{numeric} if scores overflow, Error{usage} for an
///         impossible rope_dim, or naming both files if the statistics to compare with have another shape.
[[nodiscard]] Report make_report(NamedStats source, ReportOptions options);

/// One row per format; the program makes an option --<name> FILE of each.
struct ReportFormat {
    std::string_view name;
    std::string_view what;
    std::string (*render)(const Report&);
};
[[nodiscard]] std::span<const ReportFormat> report_formats();

}  // namespace mha2mla
