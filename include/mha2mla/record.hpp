#pragma once
/// What a converted checkpoint records of itself in mha2mla.json, beside its weights.

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>

#include "mha2mla/convert.hpp"

namespace mha2mla {

/// The report of a conversion with this fingerprint (fingerprint.hpp) that `destination` holds as a whole, by its
/// mha2mla.json: every file is there in its size. Nothing if it is another, or not whole.
[[nodiscard]] std::optional<ConvertReport> finished_conversion(const std::filesystem::path& destination,
                                                               const nlohmann::ordered_json& fingerprint);
/// The fingerprint of the unfinished conversion that `destination` holds, else of the finished one; null if none.
[[nodiscard]] nlohmann::ordered_json fingerprint_at(const std::filesystem::path& destination);
/// What record_measurement() wrote into `directory`; null if nothing.
[[nodiscard]] nlohmann::ordered_json measurement_at(const std::filesystem::path& directory);
/// Adds to the mha2mla.json and the model card of a conversion what it costs.
/// @param measured object of `data` (its name), `nll_original`, `nll_converted`, `mean_kl`, `tokens`, `windows` and
///                 `context`; anything else is kept for machines.
/// @throws Error{format} if `directory` has no mha2mla.json, Error{io}.
void record_measurement(const std::filesystem::path& directory, const nlohmann::ordered_json& measured);

}  // namespace mha2mla
