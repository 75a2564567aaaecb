#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "layout.hpp"
#include "mha2mla/checkpoint_writer.hpp"
#include "mha2mla/convert.hpp"

namespace mha2mla {

/// The files of a source directory other than config.json and the weights; each list is sorted by name.
struct SideFiles {
    struct LeftOut {
        std::string name, why;
    };
    std::vector<std::string> copied;  // tokenizer, generation config, chat template, licence and the like
    std::vector<LeftOut> left_out;
};
[[nodiscard]] SideFiles side_files(const Checkpoint& source);

/// Adds the files that a loader needs besides the weights: config.json, the layout's code for transformers, the rank
/// file if the loader of the reference needs one, and side_files(). The README.md of the source becomes
/// README.source.md.
void add_side_files(CheckpointWriter& writer, const Model& source, const ConversionPlan& plan, const OutputForm& form,
                    const ConvertReport& report, const PairRanks* ranks);

}  // namespace mha2mla
