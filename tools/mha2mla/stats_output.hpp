#pragma once
/// The files that statistics are written to, by the commands that make them.

#include <CLI/CLI.hpp>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "mha2mla/calibration.hpp"

namespace mha2mla::tool {

struct StatsOutput {
    std::filesystem::path output, rank_file;
    bool overwrite = false;

    /// --output, --rank-file and --overwrite.
    void add_options(CLI::App& command);
    /// Before any work. @param inputs as of check_output_paths(). @throws Error{usage} if there is nothing to write.
    void check(const std::vector<std::filesystem::path>& inputs) const;
    void write(const CalibrationStats& stats, Observer& observer) const;

    using Rows = std::vector<std::pair<std::string, std::string>>;
    /// What the statistics are of, and where they are. The second belongs at the end.
    static void describe(const CalibrationStats& stats, Rows& rows);
    static void describe(const CalibrationStats& stats, nlohmann::ordered_json& json);
    void describe_files(Rows& rows) const;
    void describe_files(nlohmann::ordered_json& json) const;
};

}  // namespace mha2mla::tool
