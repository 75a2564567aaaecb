#pragma once
/// Multiple-choice accuracy: how often the most likely continuation of a query is the right one.

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

/// One row per published data set. `read` converts a line of its JSON Lines file to an item with lighteval's prompt.
struct ChoiceTask {
    std::string_view name;
    std::string_view keys;  // keys of a line, for messages
    ChoiceItem (*read)(const nlohmann::json& line);
};
/// All tasks. The first row, "items", is a format of this library: `query`, `choices`, `gold`.
[[nodiscard]] std::span<const ChoiceTask> choice_tasks();

/// Reads a JSON Lines file. @throws Error{io}, Error{format} naming file and line.
[[nodiscard]] std::vector<ChoiceItem> read_choices(const std::filesystem::path& file, const ChoiceTask& task);

struct Accuracy {
    double mean = 0, standard_error = 0;  // standard error of the mean: sqrt(p (1 - p) / (n - 1))
};
struct ChoiceResult {
    Accuracy summed;      // of the choice with the largest log-likelihood
    Accuracy normalized;  // of the choice with the largest log-likelihood per character, a leading space not counted
    std::int64_t items = 0, choices = 0, tokens = 0;
    std::int64_t truncated = 0;                        // questions whose beginning was left out
    std::vector<std::vector<double>> log_likelihoods;  // [items][choices], summed
};

/// Computes the log-likelihood of each choice after its query, tokenised as in lighteval: spaces at the end of the
/// query are moved to the choice, both are encoded as one text without special tokens, and the tokens after those of
/// the query are scored; if query and choice merge into one token, that one is. Where both have more tokens than the
/// model has positions, those at the beginning are left out, as in lm-eval. What the choices of a query begin with is
/// processed once.
/// @throws Error{usage} if there is no item; Error{format} naming the item if it has no tokens to score or a choice
///         alone has more tokens than the model has positions; Error{interrupted}.
[[nodiscard]] ChoiceResult score_choices(const Model& model, const Tokenizer& tokenizer,
                                         std::span<const ChoiceItem> items, const KvCacheOptions& cache,
                                         Observer& observer);

}  // namespace mha2mla
