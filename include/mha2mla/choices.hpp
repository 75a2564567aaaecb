#pragma once
/// Multiple choice: which continuation of a query a model holds likeliest.

#include <array>
#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "mha2mla/observer.hpp"
#include "mha2mla/session.hpp"
#include "mha2mla/tokenizer.hpp"

namespace mha2mla {

struct ChoiceItem {
    std::string query;
    std::vector<std::string> choices;
    std::int64_t gold = 0;
};

/// One row per published data set. `read` turns a line of its JSON Lines into an item, with lighteval's prompt.
struct ChoiceTask {
    std::string_view name;
    std::string_view keys;  // of a line, for people
    ChoiceItem (*read)(const nlohmann::json& line);
};
/// The first row, "items", is this program's own form: `query`, `choices`, `gold`.
[[nodiscard]] std::span<const ChoiceTask> choice_tasks();

/// Reads JSON Lines. @throws Error{io}, Error{format} naming file and line.
[[nodiscard]] std::vector<ChoiceItem> read_choices(const std::filesystem::path& file, const ChoiceTask& task);

struct Accuracy {
    double mean = 0, standard_error = 0;  // of the mean: sqrt(p (1 - p) / (n - 1))
};
struct ChoiceResult {
    Accuracy summed;      // the choice of largest log-likelihood wins
    Accuracy normalized;  // divided by the characters of the choice, a leading space not counted
    std::int64_t items = 0, choices = 0, tokens = 0;
    std::vector<std::vector<double>> log_likelihoods;  // [items][choices], summed
};

/// Log-likelihood of each choice after its query, as lighteval tokenises the two: spaces at the query's end go to the
/// choice, both are encoded as one text without special tokens, and what the query alone does not have is scored. A
/// query's tokens pass through the model once for all its choices.
/// @throws Error{usage} if there is no item; Error{format} naming the item if it has no tokens to score or is longer
/// than
///         the model's positions; Error{interrupted}.
[[nodiscard]] ChoiceResult score_choices(const Model& model, const Tokenizer& tokenizer,
                                         std::span<const ChoiceItem> items, const KvCacheOptions& cache,
                                         Observer& observer);

}  // namespace mha2mla
