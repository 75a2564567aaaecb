#pragma once
/// The statistics of a conversion: from a file, from text that is run through the model, or from an earlier conversion
/// of a batch.

#include "conversion.hpp"

namespace mha2mla::tool {

/// The statistics that a conversion needs besides norms.
[[nodiscard]] Gathered needs_of(const ConvertFlags& flags);
/// Checks the options for statistics. @throws Error{usage} if required ones are missing or contradict each other.
void check_statistics_flags(const ConvertFlags& flags, Context& context);
/// The input of the statistics, identified by content and not by file names. Null if none are needed.
[[nodiscard]] nlohmann::ordered_json describe_statistics(const ConvertFlags& flags, const ModelConfig& config);

/// The calibration text, identified by content.
[[nodiscard]] nlohmann::ordered_json describe_text(const TokenOptions& data);

struct Statistics {
    std::optional<PairRanks> ranks;
    std::shared_ptr<const LayerInputs> inputs;
};
/// Loads or computes the statistics. @param kept ranks of an unfinished conversion that is resumed; null if there are
/// none.
[[nodiscard]] Statistics load_statistics(const Conversion& conversion, const ConvertFlags& flags,
                                         const std::filesystem::path& directory, const PairRanks* kept,
                                         Context& context);

/// The file in which shared statistics are stored; empty if none are needed or they are given.
[[nodiscard]] std::filesystem::path statistics_file(const Conversion& conversion, const ConvertFlags& flags,
                                                    const std::filesystem::path& directory);

}  // namespace mha2mla::tool
