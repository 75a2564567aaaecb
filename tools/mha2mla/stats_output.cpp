#include "stats_output.hpp"

#include "mha2mla/atomic_file.hpp"
#include "mha2mla/error.hpp"
#include "mha2mla/rope.hpp"
#include "options.hpp"
#include "output_paths.hpp"

namespace mha2mla::tool {

void StatsOutput::add_options(CLI::App& command) {
    command.option_defaults()->group(kOutput);
    command.add_option("-o,--output", output, "Statistics file to write, for convert --stats")->type_name("FILE");
    command.add_option("--rank-file", rank_file, "Also write the reference implementation's rank file (.pth)")
        ->type_name("FILE");
    command.add_flag("--overwrite", overwrite, "Replace files that exist, also those that calibrate did not write");
}

void StatsOutput::check(const std::vector<std::filesystem::path>& inputs) const {
    if (output.empty() && rank_file.empty()) {
        throw Error(ErrorCode::usage, "nothing to write; give --output STATS.safetensors or --rank-file RANKS.pth");
    }
    std::vector<OutputPath> outputs;
    if (!output.empty()) outputs.push_back({"--output", output, "mha2mla statistics"});
    if (!rank_file.empty()) outputs.push_back({"--rank-file", rank_file, "2_norm_rank/data"});
    check_output_paths(outputs, inputs, overwrite);
}

void StatsOutput::write(const CalibrationStats& stats, Observer& observer) const {
    if (!output.empty()) save_stats(output, stats, observer);
    if (!rank_file.empty()) write_file_atomically(rank_file, rank_file_bytes(two_norm_ranks(stats)));
}

void StatsOutput::describe(const CalibrationStats& stats, Rows& rows) {
    rows.emplace_back("calibrated on",
                      std::to_string(stats.sequences) + " sequences of " + std::to_string(stats.seq_len) + " tokens");
}

void StatsOutput::describe(const CalibrationStats& stats, nlohmann::ordered_json& json) {
    json["sequences"] = stats.sequences;
    json["seq_len"] = stats.seq_len;
    json["tokens"] = stats.sequences * stats.seq_len;
}

void StatsOutput::describe_files(Rows& rows) const {
    if (!output.empty()) rows.emplace_back("statistics", output.string());
    if (!rank_file.empty()) rows.emplace_back("rank file", rank_file.string());
}

void StatsOutput::describe_files(nlohmann::ordered_json& json) const {
    if (!output.empty()) json["output"] = output.string();
    if (!rank_file.empty()) json["rank_file"] = rank_file.string();
}

}  // namespace mha2mla::tool
