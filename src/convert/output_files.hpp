#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "mha2mla/checkpoint_writer.hpp"
#include "mha2mla/convert.hpp"

namespace mha2mla {

/// What lies in a source directory beside config.json and the weights, each list in order of names.
struct SideFiles {
    struct LeftOut {
        std::string name, why;
    };
    std::vector<std::string> copied;  // tokenizer, generation config, chat template, licence and the like
    std::vector<LeftOut> left_out;
};
[[nodiscard]] SideFiles side_files(const Checkpoint& source);

/// What a loader needs beside the weights: config.json with the object `mha2mla`, the rank file where the reference's
/// loader needs one, and side_files(). The source's own README.md is kept as README.source.md.
void add_side_files(CheckpointWriter& writer, const Model& source, const ConvertOptions& options,
                    const ConvertReport& report, const PairRanks* ranks);

}  // namespace mha2mla
