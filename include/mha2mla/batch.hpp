#pragma once
/// Recipes: many conversions, and what follows them, from one JSON file (docs/batch.md).

#include <cstdint>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

namespace mha2mla {

/// A setting of a job in a recipe.
struct RecipeSetting {
    std::string name;
    bool is_path = false;  // relative to the recipe's directory
};
/// The settings that each command takes.
struct RecipeSettings {
    std::vector<RecipeSetting> convert, finetune, evaluate;
};

/// Settings by name: string, number or boolean; of `finetune` and `evaluate` also a list of them. Paths are absolute,
/// or relative if the path of the recipe is.
using JobSettings = nlohmann::ordered_json;

struct BatchEvaluation {
    std::string name;  // fits into a path
    JobSettings settings;
};

struct BatchJob {
    std::string name;  // the last component of the destination
    std::filesystem::path source, destination;
    bool converts = true;  // otherwise the source itself is fine-tuned and evaluated
    JobSettings settings;  // of the conversion
    JobSettings finetune;  // null: no fine-tuning
    std::vector<BatchEvaluation> evaluations;

    /// What is fine-tuned.
    [[nodiscard]] const std::filesystem::path& converted() const { return converts ? destination : source; }
    /// Where the fine-tuned checkpoint goes.
    [[nodiscard]] std::filesystem::path finetuned() const { return destination.string() + "-ft"; }
    /// What is evaluated.
    [[nodiscard]] std::filesystem::path result() const { return finetune.is_null() ? converted() : finetuned(); }
};

struct Recipe {
    std::filesystem::path output;  // directory for outputs, statistics and the summary
    std::vector<BatchJob> jobs;    // grids expanded, in order
};

/// Reads a recipe and resolves everything that does not depend on the checkpoints: variables, defaults, grids, paths.
/// @throws Error{io}, Error{format} naming the place in the recipe: an unknown key, a missing source, an unknown
/// variable, a cycle of variables, a grid of more than 10,000 jobs, two jobs with one destination, two evaluations of a
/// job with one name.
/// @param variables values instead of the recipe's own; the names must be there
[[nodiscard]] Recipe read_recipe(const std::filesystem::path& path, const RecipeSettings& settings,
                                 const std::map<std::string, std::string>& variables = {});

/// The result of an evaluation that save_evaluation() wrote with this fingerprint; null if there is none.
[[nodiscard]] nlohmann::ordered_json saved_evaluation(const std::filesystem::path& file,
                                                      const nlohmann::ordered_json& fingerprint);
/// Writes a result as one JSON file, whose directory is made. @throws Error{io}
void save_evaluation(const std::filesystem::path& file, const nlohmann::ordered_json& fingerprint,
                     const nlohmann::ordered_json& result);

/// Values of variables by name. References "${name}" in strings are replaced; "$$" is a dollar sign. A string that
/// consists of one reference gets the variable's type. One value may take 1,000 references, nested 64 deep, and become
/// 65,536 characters long.
class Variables {
public:
    /// @param where for messages, such as "recipe.json".
    explicit Variables(std::string where) : where_(std::move(where)) {}
    void set(const std::string& name, nlohmann::ordered_json value) { values_[name] = std::move(value); }
    /// @throws Error{format} for an unknown variable (listing the known), a cycle (naming it), an open "${" or a value
    ///         beyond those limits.
    [[nodiscard]] nlohmann::ordered_json expand(const nlohmann::ordered_json& value) const;

private:
    struct Expansion;
    nlohmann::ordered_json expand(const std::string& text, Expansion& expansion) const;
    nlohmann::ordered_json value_of(const std::string& name, Expansion& expansion) const;
    std::string where_;
    std::map<std::string, nlohmann::ordered_json> values_;
};

}  // namespace mha2mla
