#pragma once
/// The statistics of a conversion: what a plan needs of them, and how they are made of a text or read from a file.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "mha2mla/calibration.hpp"
#include "mha2mla/convert.hpp"
#include "mha2mla/rope.hpp"
#include "mha2mla/text_source.hpp"

namespace mha2mla {

/// The sequences of a text on which a model is calibrated.
struct SampleOptions {
    static constexpr std::int64_t kDefaultSamples = 1024;
    std::optional<std::int64_t> samples = {};  // absent: kDefaultSamples
    std::optional<std::int64_t> seq_len = {};  // absent: 2048, or the model's positions if these are fewer
    bool until_settled = false;                // as many as calibrate_until_settled() takes
    std::optional<Shard> shard = {};           // only this part of them, for merge_stats()
    [[nodiscard]] std::int64_t length(const ModelConfig& config) const;
};

/// Calibrates on the beginning of a text. Warns if the text has fewer sequences than are asked for, if they are longer
/// than the model's positions, and if the selection did not settle.
/// @param rope_dim the size of the selection that SampleOptions::until_settled observes.
/// @param max_memory as in CalibrationOptions.
/// Of a run in shards, the orders of pairs are computed in the first, which must have all of the sample they go by.
/// @throws Error{usage} if the text is shorter than one sequence, if there are fewer sequences than shards or too few
/// in the first, if SampleOptions has both a shard and until_settled, and what load_tokens() and calibrate() throw.
[[nodiscard]] CalibrationStats calibrate_on_text(const Model& model, const TextSource& text,
                                                 const SampleOptions& samples, std::int64_t rope_dim,
                                                 const StatisticSet& gather, std::uint64_t max_memory,
                                                 Observer& observer);

/// What statistics are made of: a text, or one of two kinds of files.
struct StatisticsSource {
    TextSource text = {};
    SampleOptions samples = {};            // of `text`
    std::filesystem::path stats = {};      // that save_stats() wrote
    std::filesystem::path rank_file = {};  // of the reference implementation; it ranks pairs by norms
};

/// Whether the plan needs any statistics.
[[nodiscard]] bool needs_statistics(const StagedPlan& plan);
/// The statistics that the plan needs besides norms.
[[nodiscard]] StatisticSet needed_statistics(const StagedPlan& plan);

/// Checks, without reading any text, that the source has what the plan needs. Warns if the plan needs no statistics
/// and some are given.
/// @throws Error{usage} if statistics are missing, given twice or lack something, Error{io} and Error{format} for a
///         statistics file that cannot be read.
void check_statistics(const StagedPlan& plan, const StatisticsSource& source, const ModelConfig& config,
                      Observer& observer);

/// A text as Provenance::ranks_from identifies it: by the hashes of its files, not by their names.
[[nodiscard]] nlohmann::ordered_json describe_text(const TextSource& text);
/// The value of Provenance::ranks_from; null if the plan needs no statistics.
[[nodiscard]] nlohmann::ordered_json describe_statistics(const StagedPlan& plan, const StatisticsSource& source,
                                                         const ModelConfig& config);

/// Statistics that several conversions of a model share: the text is read once.
struct SharedStatistics {
    std::filesystem::path file = {};  // made by the conversion that needs it first; empty: nothing is shared
    StatisticSet needs = {};          // by any of the conversions, besides norms
};
/// The file in `directory` for statistics that all conversions with this source, text and samples share; empty if the
/// plan needs none, or if they do not come from a text.
/// @param fingerprint conversion_fingerprint() with describe_statistics() as its Provenance::ranks_from.
[[nodiscard]] std::filesystem::path shared_statistics_file(const std::filesystem::path& directory, const Model& model,
                                                           const StagedPlan& plan, const StatisticsSource& source,
                                                           const nlohmann::ordered_json& fingerprint);
/// Whether the file exists and holds what is needed.
[[nodiscard]] bool has_statistics(const SharedStatistics& shared);

/// The statistics of one conversion.
struct Statistics {
    std::optional<PairRanks> ranks = {};
    std::shared_ptr<const LayerInputs> inputs = nullptr;
    std::optional<CalibrationStats::Settling> settling = {};  // set if a selection was observed
    std::int64_t sequences = 0;                               // of the text; 0 if none was read
    /// For convert(). The statistics must outlive the conversion.
    [[nodiscard]] ConversionInputs view() const { return {ranks ? &*ranks : nullptr, inputs.get()}; }
};
/// Reads or computes what the plan needs; nothing if it needs no statistics. While one process computes a shared file,
/// others wait for it.
/// @param kept ConversionJob::ranks() of a conversion that is resumed; null if there are none.
/// @param max_memory as in CalibrationOptions.
/// @throws what check_statistics() and calibrate_on_text() throw, Error{interrupted}.
[[nodiscard]] Statistics make_statistics(const Model& model, const StagedPlan& plan, const StatisticsSource& source,
                                         Observer& observer, std::uint64_t max_memory = 0,
                                         const SharedStatistics& shared = {}, const PairRanks* kept = nullptr);

}  // namespace mha2mla
