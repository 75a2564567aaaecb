#pragma once
/// Whether a checkpoint would convert, without converting it.

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "mha2mla/latent.hpp"
#include "mha2mla/observer.hpp"

namespace mha2mla {

struct DiagnosisOptions {
    std::optional<std::int64_t> rope_dim, kv_rank;  // absent: the defaults of a conversion
    Factorization factorization = Factorization::joint;
    std::filesystem::path output;  // where free space is looked for; empty: beside the checkpoint
    bool deep = false;             // read every weight and look for values that are not finite
};

enum class Verdict : std::uint8_t { ok, warning, problem };
/// "ok", "warning", "problem"
[[nodiscard]] std::string_view verdict_name(Verdict verdict);

struct Finding {
    Verdict verdict = Verdict::ok;
    std::string topic;  // "config", "weights", "tensors", "values", "plan", "tokenizer", "memory", "disk"
    std::string text;   // what, where, and what to do
};

/// Looks at everything that convert() needs and goes on after a problem as far as that is possible, so that one look
/// finds all of them.
/// @return at least one finding per topic that could be looked at; the checkpoint converts if none is a problem.
/// @throws Error{interrupted}
[[nodiscard]] std::vector<Finding> diagnose(const std::filesystem::path& directory, const DiagnosisOptions& options,
                                            Observer& observer);

}  // namespace mha2mla
