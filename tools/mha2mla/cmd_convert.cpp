#include <algorithm>
#include <memory>

#include "commands.hpp"
#include "conversion.hpp"
#include "convert_settings.hpp"
#include "mha2mla/error.hpp"
#include "mha2mla/threads.hpp"
#include "output.hpp"

namespace mha2mla::tool {
namespace {

void print_report(const ConvertFlags& flags, const ConvertOptions& options, const Plan& plan,
                  const ConvertReport* report, bool as_json) {
    const auto measured = report == nullptr ? nlohmann::ordered_json() : measurement_at(flags.destination);
    if (as_json) {
        auto json = plan_json(plan, 16);
        json["rope"] = options.rope.strategy;
        json["rope_dim"] = options.rope.rope_dim;
        json["kv_rank"] = options.kv_rank;
        json["svd"] = row_of(options.factorization).name;
        if (report != nullptr) {
            json["retained_energy"] = report->retained_energy;
            json["output"] = flags.destination.string();
            json["output_bytes"] = report->output_bytes;
            json["already_finished"] = report->already_finished;
            json["pieces"] = report->pieces;
            json["pieces_resumed"] = report->pieces_resumed;
            json["measured"] = measured;
        }
        print_json(json);
        return;
    }
    std::vector<std::pair<std::string, std::string>> rows = {
        {report == nullptr          ? "would convert"
         : report->already_finished ? "already converted"
                                    : "converted",
         flags.source.string() + " -> " + flags.destination.string()},
        {"method", options.rope.strategy + " selection, rope-dim " + std::to_string(options.rope.rope_dim) + ", " +
                       std::string(row_of(options.factorization).name) + " SVD, kv-rank " +
                       std::to_string(options.kv_rank)},
        {"parameters", human_count(plan.parameters_original) + " -> " + human_count(plan.parameters_converted)},
        {"KV cache per token", human_bytes(plan.original_bytes_per_token) + " -> " +
                                   human_bytes(plan.converted_bytes_per_token) + " bytes at 16 bit, " +
                                   human_reduction(plan.reduction())},
    };
    if (report != nullptr && options.factorization != Factorization::none) {
        const auto [low, high] = std::minmax_element(report->retained_energy.begin(), report->retained_energy.end());
        rows.emplace_back("energy kept by the SVD",
                          fixed(100 * *low, 2) + "% to " + fixed(100 * *high, 2) + "% by layer");
    }
    if (report != nullptr && report->pieces_resumed > 0) {
        rows.emplace_back("resumed", std::to_string(report->pieces_resumed) + " of " + std::to_string(report->pieces) +
                                         " pieces were finished before");
    }
    if (!measured.is_null()) {
        rows.emplace_back("NLL", fixed(measured.at("nll_original")) + " -> " + fixed(measured.at("nll_converted")) +
                                     " nats per token");
    }
    print_table(rows);
}

struct RunFlags {
    bool dry_run = false, print_recipe = false, json = false;
};

void run(const ConvertFlags& flags, const RunFlags& how, const CLI::App& command, Context& context) {
    if (how.print_recipe) return print_json(recipe_of(command, flags));
    const ThreadScope threads(context.threads);
    Conversion conversion = prepare(flags, context);
    if (how.dry_run) {
        check_destination(conversion.model, flags.destination, conversion.options);
        return print_report(flags, conversion.options, conversion.plan, nullptr, how.json);
    }
    conversion.options.recipe = recipe_of(command, flags);
    conversion.options.command = command_line(conversion.options.recipe);
    const ConvertReport report = run_conversion(conversion, flags, {}, context);
    print_report(flags, conversion.options, report.plan, &report, how.json);
}

}  // namespace

void add_convert(CLI::App& app, Context& context) {
    auto flags = std::make_shared<ConvertFlags>();
    auto how = std::make_shared<RunFlags>();
    auto* command = app.add_subcommand("convert", "Convert a checkpoint to MLA");
    add_checkpoint_option(*command, flags->source, "source", "Checkpoint directory to convert");
    add_checkpoint_option(*command, flags->destination, "destination", "Directory to create");
    add_conversion_options(*command, *flags);
    command->option_defaults()->group(kOutput);
    command->add_flag("--overwrite", flags->overwrite, "Replace a destination that holds files");
    command->add_flag("--resume", flags->resume,
                      "Go on with an unfinished conversion of the same settings; one that is whole is left as it is");
    command->add_flag("--dry-run", how->dry_run, "Check everything and print what would be done");
    command->add_flag("--print-recipe", how->print_recipe, "Print these options as a recipe for batch, and do nothing");
    add_threads_option(*command, context);
    add_size(*command, "--max-memory", context.max_memory,
             "Private memory that the run may take, such as 8GB: more lets it convert more layers at once;\n"
             "default: two layers' attention matrices in float32 and 200 MB")
        ->group(kRunning);
    add_json_option(*command, how->json);
    set_footer(
        *command, "The defaults are the paper's: 2-norm selection, joint SVD, a cache smaller by 68.75%.",
        {{"", "mha2mla convert ./model ./model-mla --calibration-text corpus.txt"},
         {"with statistics that calibrate saved, keeping more",
          "mha2mla convert ./model ./model-mla --stats stats.safetensors --rope-dim 16 --kv-rank 48"},
         {"without any text", "mha2mla convert ./model ./model-mla --rope uniform"},
         {"what it would do, without doing it", "mha2mla convert ./model ./model-mla --rope uniform --dry-run"}});
    command->callback([flags, how, command, &context] { run(*flags, *how, *command, context); });
}

}  // namespace mha2mla::tool
