#pragma once
/// Recipes and the options of convert: a setting of a recipe is a long option without its dashes. The options
/// themselves are the table, so that a new one is known to recipes at once.

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "conversion.hpp"
#include "mha2mla/batch.hpp"

namespace mha2mla::tool {

/// Every option of add_conversion_options().
[[nodiscard]] std::vector<RecipeSetting> convert_settings();

/// The settings that were given on the command line of `convert`, as a recipe with one job and absolute paths.
[[nodiscard]] nlohmann::ordered_json recipe_of(const CLI::App& command, const ConvertFlags& flags);
/// That recipe as a file for batch, where a dollar sign is written twice.
[[nodiscard]] nlohmann::ordered_json written(const nlohmann::ordered_json& recipe);
/// The same recipe for a model card, which others read: the source by its name, directories and files by the last
/// component of their paths.
[[nodiscard]] nlohmann::ordered_json published(const nlohmann::ordered_json& recipe, const Model& source);
/// The only job of a recipe as a command for the shell.
[[nodiscard]] std::string command_line(const nlohmann::ordered_json& recipe);

/// The options of a job of a recipe. @throws Error{usage} naming the job where a value is not possible.
[[nodiscard]] ConvertFlags flags_of(const BatchJob& job);

}  // namespace mha2mla::tool
