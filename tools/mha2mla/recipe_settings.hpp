#pragma once
/// Recipes and the options of commands: a setting of a recipe is a long option without its dashes. The settings are
/// read from the options, so that recipes support a new option without changes.

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "conversion.hpp"
#include "evaluation.hpp"
#include "finetuning.hpp"
#include "mha2mla/batch.hpp"

namespace mha2mla::tool {

/// Every option of add_conversion_options().
[[nodiscard]] std::vector<RecipeSetting> convert_settings();
/// Those of all commands that a recipe may run.
[[nodiscard]] RecipeSettings recipe_settings();

/// The settings that were given on the command line of `convert`, as a recipe with one job and absolute paths.
[[nodiscard]] nlohmann::ordered_json recipe_of(const CLI::App& command, const ConvertFlags& flags);
/// That recipe as a file for batch, where a dollar sign is written twice.
[[nodiscard]] nlohmann::ordered_json written(const nlohmann::ordered_json& recipe);
/// The recipe for a model card, which may be published: the source is replaced by its name, and paths by their last
/// component.
[[nodiscard]] nlohmann::ordered_json published(const nlohmann::ordered_json& recipe, const Model& source);
/// The only job of a recipe as a command for the shell.
[[nodiscard]] std::string command_line(const nlohmann::ordered_json& recipe);

/// The options of a job of a recipe, of its fine-tuning and of one of its evaluations. @throws Error{usage} naming the
/// job if a value is invalid.
[[nodiscard]] ConvertFlags flags_of(const BatchJob& job);
[[nodiscard]] FinetuneFlags finetune_flags_of(const BatchJob& job);
[[nodiscard]] EvalFlags eval_flags_of(const BatchJob& job, const BatchEvaluation& evaluation);

}  // namespace mha2mla::tool
