#pragma once
#include <filesystem>
#include <string>

#include "mha2mla/convert.hpp"

namespace mha2mla {

/// Everything beside the weights: config.json with the object `mha2mla`, the rank file where the reference's loader
/// needs one, a model card, and what else a loader needs from the source directory (tokenizer, generation config, chat
/// template, licence). The source's own README.md is kept as README.source.md.
void add_side_files(CheckpointWriter& writer, const Model& source, const ConvertOptions& options,
                    const ConvertReport& report, const PairRanks* ranks);

}  // namespace mha2mla
