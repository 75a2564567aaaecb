#pragma once
/// Checks whether a checkpoint can be converted, without converting it.

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "mha2mla/error.hpp"
#include "mha2mla/layout.hpp"
#include "mha2mla/observer.hpp"

namespace mha2mla {

struct DiagnosisOptions {
    std::optional<std::int64_t> rope_dim, kv_rank;  // if absent: the defaults of a conversion
    Factorization factorization = Factorization::joint;
    std::filesystem::path output;  // where free space is checked; if empty: beside the checkpoint
    bool deep = false;             // read every weight and check that it is finite
    bool ignore_unused = false;    // what the architecture has no place for is a warning, as for Model::open()
};

enum class Verdict : std::uint8_t { ok, warning, problem };
/// The name of a verdict: "ok", "warning" or "problem".
[[nodiscard]] std::string_view verdict_name(Verdict verdict);

struct Finding {
    Verdict verdict = Verdict::ok;
    /// "config", "weights", "tensors", "unused", "values", "plan", "tokenizer", "memory", "files", "disk"
    std::string topic;
    std::string text;              // what is wrong and where
    Remedy remedy = Remedy::none;  // which setting to change, see advice()
};

/// Checks everything that a conversion needs. It continues after a problem if possible, so that one run reports all
/// problems.
/// @return at least one finding per topic that could be checked; the checkpoint can be converted if no finding is a
///         problem.
/// @throws Error{interrupted}
[[nodiscard]] std::vector<Finding> diagnose(const std::filesystem::path& directory, const DiagnosisOptions& options,
                                            Observer& observer);

}  // namespace mha2mla
