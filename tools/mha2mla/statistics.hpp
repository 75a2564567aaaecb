#pragma once
/// Where a conversion's statistics come from: a file, text that is run through the model, or what an earlier conversion
/// of a batch left.

#include "conversion.hpp"

namespace mha2mla::tool {

/// What the statistics must hold beside norms.
[[nodiscard]] Gathered needs_of(const ConvertFlags& flags);
/// @throws Error{usage} unless exactly what is needed is given.
void check_statistics_flags(const ConvertFlags& flags, Context& context);
/// What the statistics are made of, by content: the name and place of a file do not matter. Null if none are needed.
[[nodiscard]] nlohmann::ordered_json describe_statistics(const ConvertFlags& flags, const ModelConfig& config);

/// The same of calibration text alone.
[[nodiscard]] nlohmann::ordered_json describe_text(const TokenOptions& data);

struct Statistics {
    std::optional<PairRanks> ranks;
    std::shared_ptr<const LayerInputs> inputs;
};
/// Loads or gathers them, or takes the ranks of an unfinished conversion that is resumed.
[[nodiscard]] Statistics load_statistics(const Conversion& conversion, const ConvertFlags& flags,
                                         const std::filesystem::path& directory, Context& context);

/// Where they are kept; empty if none are needed or they are given.
[[nodiscard]] std::filesystem::path statistics_file(const Conversion& conversion, const ConvertFlags& flags,
                                                    const std::filesystem::path& directory);

}  // namespace mha2mla::tool
