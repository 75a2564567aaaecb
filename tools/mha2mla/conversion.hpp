#pragma once
/// One conversion as `convert` and `batch` both run it: its options, and what follows from them.

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>

#include "mha2mla/conversion_request.hpp"
#include "mha2mla/convert.hpp"
#include "mha2mla/statistics.hpp"
#include "options.hpp"

namespace mha2mla::tool {

struct ConvertFlags {
    std::filesystem::path source, destination;
    ConversionRequest request;  // but for what asked() adds
    std::uint64_t max_shard_bytes = 5'000'000'000;
    StatisticsSource statistics;
    TextSource evaluation;
    WindowFlags evaluation_windows;
    bool overwrite = false, resume = false;
    bool ignore_unused = false;  // see OpenOptions

    /// The request with what the options of text say.
    [[nodiscard]] ConversionRequest asked() const;
    [[nodiscard]] bool aligned() const { return asked().aligned(); }
};

/// --method and --kv-reduction.
void add_budget_options(CLI::App& command, ConvertFlags& flags);
/// Everything that decides what the output is; what a run may take and how it reports is not among it.
void add_conversion_options(CLI::App& command, ConvertFlags& flags);

/// A conversion that can run: its options are possible and belong together.
struct Conversion {
    Model model;
    ConversionPlan plan;
    RunLimits limits;
    Provenance provenance;
    Plan cost;
    nlohmann::ordered_json fingerprint;
    SharedStatistics shared;  // with other conversions of a batch
};
/// Options that would have no effect are mistakes worth telling.
/// @param shared directory of statistics that conversions share; empty: nothing is shared.
/// @throws Error{usage}, and what opening the source throws.
[[nodiscard]] Conversion prepare(const ConvertFlags& flags, Context& context, const std::filesystem::path& shared = {});

/// Checks that the text of an evaluation can be read and is long enough, which would otherwise be known only after the
/// conversion.
void check_evaluation(const Conversion& conversion, const ConvertFlags& flags, Context& context);

/// Calibrates where needed and converts, or resumes. With --eval-text or --eval-tokens also evaluates both checkpoints
/// and records that in the output, if it is not recorded there yet.
[[nodiscard]] ConvertReport run_conversion(const Conversion& conversion, const ConvertFlags& flags, Context& context);

/// Whether run_conversion() would find everything done.
[[nodiscard]] bool is_done(const Conversion& conversion, const ConvertFlags& flags);

}  // namespace mha2mla::tool
