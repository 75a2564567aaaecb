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
        bool for_name_alone = false;  // not for what it is, such as a link
    };
    std::vector<std::string> copied;  // tokenizer, generation config, chat templates, licence and the like
    std::vector<LeftOut> left_out;

    /// The name of a copied file in the output: README.md makes way for the model card.
    [[nodiscard]] std::string output_name(const std::string& name) const;
};
[[nodiscard]] SideFiles side_files(const Checkpoint& source);

/// Checks that no directory has the name of a file of the output. @throws Error{io}
void check_output_names(const Checkpoint& source, const std::filesystem::path& destination);

/// Adds the files that a loader needs besides the weights: config.json, the layout's code for transformers, the rank
/// file if the loader of the reference needs one, and side_files().
void add_side_files(CheckpointWriter& writer, const Model& source, const ConversionPlan& plan, const OutputForm& form,
                    const ConvertReport& report, const PairRanks* ranks);

}  // namespace mha2mla
