#pragma once
/// Readable reports on the per-head 2-norms of a statistics file: the score of each rotary pair, the pairs that each
/// selection keeps, and the error of a latent of each width.

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mha2mla/calibration.hpp"
#include "mha2mla/rope.hpp"
#include "mha2mla/spectrum.hpp"

namespace mha2mla {

/// θ_k of every rotary pair, and where they come from.
struct RotaryFrequencies {
    std::vector<double> theta;  // [pairs], radians per token; empty: unknown
    std::string source;         // for display, for example "config.json of ./model"
};
/// The number of tokens of one full rotation: 2π/θ.
[[nodiscard]] double wavelength(double theta);

/// Statistics, and the name under which a report shows them.
struct NamedStats {
    std::string name;
    CalibrationStats stats;
};

struct ReportOptions {
    std::int64_t rope_dim = 0;  // d_r for which the kept pairs are shown; 0: head_dim/8, but at least 2
    RotaryFrequencies frequencies;
    std::vector<LayerSpectra> spectra;  // for the pairs that report_selection() keeps; empty: not measured
    std::optional<NamedStats> other;    // statistics to compare with
};

/// The concentration of a layer's scores on few pairs, as means over its KV heads, and the agreement of the selections.
struct LayerSummary {
    double gini = 0;             // 0: all pairs have the same score; near 1: one pair has all of it
    double effective_pairs = 0;  // exp of the entropy of the scores: from 1 to the number of pairs
    /// The r largest scores' share of the sum, for r from 1. [pairs]
    std::vector<double> top_share;
    /// |A ∩ B| / |A ∪ B| of the sets of r pairs that two strategies keep, for r from 1. [pairs][strategies *
    /// strategies]
    std::vector<std::vector<double>> agreement;
};

/// The ranks of one layer compared with those of another statistics file, as means over its KV heads.
struct LayerComparison {
    double spearman = 1;
    std::vector<double> jaccard;  // of the two sets of r pairs that 2-norm keeps, for r from 1. [pairs]
};

/// A KV head that keeps different pairs with the other statistics.
struct KeptChange {
    std::int64_t layer = 0, kv_head = 0;
    std::vector<std::int64_t> leaving;   // kept only with these statistics
    std::vector<std::int64_t> entering;  // kept only with the other statistics
};

struct Comparison {
    NamedStats other;
    PairRanks ranks;
    std::vector<LayerComparison> layers;
    std::vector<KeptChange> changes;  // at the report's rope_dim
};

/// The content of a report, independent of its format.
struct Report {
    NamedStats source;
    ModelConfig shape;  // layers, heads and head_dim of the statistics; nothing else is set
    std::int64_t rope_dim = 0;
    RotaryFrequencies frequencies;
    std::vector<double> scores;                            // [layers, kv_heads, pairs]
    PairRanks ranks;                                       // of the scores; 2-norm selects by them
    std::map<std::string, PairRanks, std::less<>> orders;  // those that the statistics have, by strategy
    std::vector<RopeSelection> kept;  // at rope_dim, one per row of rope_strategies() whose statistics are present
    std::vector<LayerSummary> layers;
    std::vector<LayerSpectra> spectra;                  // [layers] or empty
    std::vector<std::vector<RetainedEnergy>> retained;  // [layers], all with the same widths; or empty
    std::optional<Comparison> comparison;

    /// The scores of a KV head, [pairs].
    [[nodiscard]] std::span<const double> head_scores(std::int64_t layer, std::int64_t kv_head) const;
};

/// The shape of the model that the statistics belong to, as far as a selection needs it.
/// @throws Error{format} if the statistics have no layer, head or pair, Error{unsupported} for more than 256 pairs.
[[nodiscard]] ModelConfig shape_of(const NamedStats& stats);

/// `asked`, or the default of this shape if `asked` is 0.
/// @throws Error{usage} if it is odd or not from 2 to head_dim.
[[nodiscard]] std::int64_t report_rope_dim(const ModelConfig& shape, std::int64_t asked);

/// The pairs that 2-norm keeps with these statistics, for layer_spectra().
[[nodiscard]] RopeSelection report_selection(const NamedStats& stats, std::int64_t rope_dim);

/// Makes the content of a report.
/// @throws Error{format} and Error{unsupported} as shape_of(), Error{numeric} if scores overflow, Error{usage} for an
///         impossible rope_dim, or naming both files if the other statistics have a different shape.
[[nodiscard]] Report make_report(NamedStats source, ReportOptions options);

/// One row per format. The program has an option --<name> FILE for each.
struct ReportFormat {
    std::string_view name;
    std::string_view what;
    std::string (*render)(const Report&);
};
[[nodiscard]] std::span<const ReportFormat> report_formats();

/// The log of a training run (docs/formats.md): what its steps and evaluations had, over the tokens behind them.
struct TrainingCurves {
    using Points = std::vector<std::pair<double, double>>;  // tokens, value
    std::string name;
    Points loss, gradient_norm, learning_rate, nll;
    double tokens_per_second = 0;  // median of the steps
};
/// @throws Error{io}, Error{format} naming file and line.
[[nodiscard]] TrainingCurves read_training_log(const std::filesystem::path& file);
/// A page that needs nothing beside it: the curves of one run, or of several in one figure each.
[[nodiscard]] std::string training_html(std::span<const TrainingCurves> runs);

}  // namespace mha2mla
