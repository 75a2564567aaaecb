#pragma once
/// What follows the conversion of a job of a recipe: its fine-tuning and its evaluations.

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "context.hpp"
#include "mha2mla/batch.hpp"

namespace mha2mla::tool {

/// @param directory where results of evaluations are kept
/// @throws Error for settings that are impossible, files that are not there, and outputs that cannot be written.
void check_stages(const BatchJob& job, const std::filesystem::path& directory, bool overwrite, Context& context);

/// "then fine-tuned and evaluated 3 times"; empty if nothing follows.
[[nodiscard]] std::string stages_text(const BatchJob& job);

struct StagesReport {
    nlohmann::ordered_json finetuned;    // steps and NLL; null without fine-tuning
    nlohmann::ordered_json evaluations;  // by name: the metric, its score and the file of the whole result
    bool worked = false;                 // whether anything was not done before
};
/// Fine-tunes, or goes on with it, and evaluates what is not evaluated yet.
/// @param directory where results of evaluations are kept
/// @param overwrite replaces what was fine-tuned, and LongBench's predictions that were made, with other settings
[[nodiscard]] StagesReport run_stages(const BatchJob& job, const std::filesystem::path& directory, bool overwrite,
                                      Context& context);

}  // namespace mha2mla::tool
