#include <memory>

#include "commands.hpp"
#include "mha2mla/calibration.hpp"
#include "options.hpp"
#include "output.hpp"
#include "stats_output.hpp"

namespace mha2mla::tool {
namespace {

struct MergeFlags {
    std::vector<std::filesystem::path> shards;
    StatsOutput output;
    bool json = false;
};

void run(const MergeFlags& flags, Context& context) {
    flags.output.check(flags.shards);
    const CalibrationStats stats = merge_stats(flags.shards);
    flags.output.write(stats, context.observer);
    if (flags.json) {
        nlohmann::ordered_json json = {{"shards", flags.shards.size()}};
        StatsOutput::describe(stats, json);
        flags.output.describe_files(json);
        print_json(json);
        return;
    }
    StatsOutput::Rows rows = {{"shards", std::to_string(flags.shards.size())}};
    StatsOutput::describe(stats, rows);
    flags.output.describe_files(rows);
    print_table(rows);
}

}  // namespace

void add_calibrate_merge(CLI::App& app, Context& context) {
    auto flags = std::make_shared<MergeFlags>();
    auto* command = app.add_subcommand("calibrate-merge",
                                       "Put together the statistics of all shards of a run of calibrate --shard");
    command->add_option("shards", flags->shards, "Statistics files of all shards, in any order")
        ->required()
        ->type_name("FILE");
    flags->output.add_options(*command);
    add_json_option(*command, flags->json);
    set_footer(
        *command,
        "The statistics are those of one run over the whole text, but for the rounding of doubles. Shards that are "
        "missing, there twice or of different runs are refused.",
        {{"", "mha2mla calibrate merge part-*.safetensors -o stats.safetensors"}});
    command->callback([flags, &context] { run(*flags, context); });
}

}  // namespace mha2mla::tool
