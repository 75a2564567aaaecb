#include <algorithm>
#include <memory>

#include "commands.hpp"
#include "conversion.hpp"
#include "convert_settings.hpp"
#include "mha2mla/memory.hpp"
#include "mha2mla/record.hpp"
#include "mha2mla/threads.hpp"
#include "output.hpp"

namespace mha2mla::tool {
namespace {

/// The widths that were used, or the range that is still to be chosen from.
struct Used {
    std::string rope_dim, kv_rank;
};
Used used(const ConvertOptions& options, const ConvertReport* report, const ModelConfig& config) {
    if (report != nullptr) {
        return {std::to_string(report->selection.rope_dim), std::to_string(report->kv_rank)};
    }
    if (!options.align) return {std::to_string(options.rope.rope_dim), std::to_string(options.kv_rank)};
    const auto splits = possible_splits(config, options.align->options);
    return {range_text(splits.front().rope_dim, splits.back().rope_dim),
            range_text(splits.front().kv_rank, splits.back().kv_rank)};
}

std::string method_text(const ConvertOptions& options, const Used& split) {
    return options.rope.strategy + " selection, rope-dim " + split.rope_dim + ", " +
           std::string(row_of(options.factorization).name) + " SVD, kv-rank " + split.kv_rank +
           (options.align ? ", weights aligned on text" : "");
}

using Json = nlohmann::ordered_json;
using Rows = std::vector<std::pair<std::string, std::string>>;

/// Smallest and largest value of the layers, as text.
std::string layer_range(const std::vector<double>& values, double unit, int digits, const std::string& suffix) {
    const auto [low, high] = std::minmax_element(values.begin(), values.end());
    return fixed(unit * *low, digits) + suffix + " to " + fixed(unit * *high, digits) + suffix;
}

/// What --dry-run prints.
Json plan_as_json(const Conversion& conversion) {
    const ConvertOptions& options = conversion.options;
    Json json = plan_json(conversion.plan, 16);
    json["rope"] = options.rope.strategy;
    json["rope_dim"] = options.align ? Json() : Json(options.rope.rope_dim);
    json["kv_rank"] = options.align ? Json() : Json(options.kv_rank);
    json["svd"] = row_of(options.factorization).name;
    json["aligned"] = options.align.has_value();
    if (options.align) json["splits"] = splits_json(possible_splits(conversion.model.config, options.align->options));
    json["output_bytes"] = planned_output_bytes(conversion.model, options);
    json["memory"] = planned_memory(conversion.model.config, options);
    return json;
}

Json report_as_json(const ConvertFlags& flags, const Conversion& conversion, const ConvertReport& report) {
    const ConvertOptions& options = conversion.options;
    Json json = plan_json(report.plan, 16);
    json["rope"] = options.rope.strategy;
    json["rope_dim"] = report.selection.rope_dim;
    json["kv_rank"] = report.kv_rank;
    json["svd"] = row_of(options.factorization).name;
    json["aligned"] = options.align.has_value();
    json["retained_energy"] = report.retained_energy;
    if (!report.balance.empty()) json["kv_balance"] = report.balance;
    if (!report.alignment_error.empty()) json["alignment_error"] = report.alignment_error;
    json["output"] = flags.destination.string();
    json["output_bytes"] = report.output_bytes;
    json["already_finished"] = report.already_finished;
    json["pieces"] = report.pieces;
    json["pieces_resumed"] = report.pieces_resumed;
    json["measured"] = measurement_at(flags.destination);
    return json;
}

Rows common_rows(const ConvertFlags& flags, const Conversion& conversion, const ConvertReport* report,
                 const std::string& state) {
    const Plan& plan = report != nullptr ? report->plan : conversion.plan;
    const bool undecided = report == nullptr && conversion.options.align;
    const Used split = used(conversion.options, report, conversion.model.config);
    return {
        {state, flags.source.string() + " -> " + flags.destination.string()},
        {"method", method_text(conversion.options, split)},
        {"parameters", human_count(plan.parameters_original) + " -> " + (undecided ? "about " : "") +
                           human_count(plan.parameters_converted)},
        {"KV cache per token", human_bytes(plan.original_bytes_per_token) + " -> " +
                                   human_bytes(plan.converted_bytes_per_token) + " bytes at 16 bit, " +
                                   human_reduction(plan.reduction())},
    };
}

void print_plan(const ConvertFlags& flags, const Conversion& conversion, bool as_json) {
    if (as_json) return print_json(plan_as_json(conversion));
    Rows rows = common_rows(flags, conversion, nullptr, "would convert");
    rows.emplace_back("would take",
                      memory_text(planned_output_bytes(conversion.model, conversion.options)) + " of disk and " +
                          memory_text(planned_memory(conversion.model.config, conversion.options)) + " of memory");
    print_table(rows);
}

void print_report(const ConvertFlags& flags, const Conversion& conversion, const ConvertReport& report, bool as_json) {
    if (as_json) return print_json(report_as_json(flags, conversion, report));
    Rows rows = common_rows(flags, conversion, &report, report.already_finished ? "already converted" : "converted");
    if (!report.retained_energy.empty() && conversion.options.factorization != Factorization::none) {
        rows.emplace_back("energy kept by the SVD", layer_range(report.retained_energy, 100, 2, "%") + ", per layer");
    }
    if (!report.balance.empty()) rows.emplace_back("kv-balance", layer_range(report.balance, 1, 2, "") + ", per layer");
    if (report.pieces_resumed > 0) {
        rows.emplace_back("resumed", std::to_string(report.pieces_resumed) + " of " + std::to_string(report.pieces) +
                                         " pieces were finished before");
    }
    const Json measured = measurement_at(flags.destination);
    if (!measured.is_null()) {
        rows.emplace_back("NLL", fixed(measured.at("nll_original")) + " -> " + fixed(measured.at("nll_converted")) +
                                     " nats per token");
    }
    if (!report.alignment_error.empty()) {
        rows.emplace_back("residual error", layer_range(report.alignment_error, 1, 5, "") + " (relative), per layer");
    }
    print_table(rows);
}

struct RunFlags {
    bool dry_run = false, print_recipe = false, json = false;
};

void run(const ConvertFlags& flags, const RunFlags& how, const CLI::App& command, Context& context) {
    if (how.print_recipe) return print_json(written(recipe_of(command, flags)));
    const ThreadScope threads(context.threads);
    Conversion conversion = prepare(flags, context);
    if (how.dry_run) {
        check_destination(conversion.model, flags.destination, conversion.options);
        return print_plan(flags, conversion, how.json);
    }
    const auto recipe = published(recipe_of(command, flags), conversion.model);
    conversion.options.recipe = written(recipe);
    conversion.options.command = command_line(recipe);
    const ConvertReport report = run_conversion(conversion, flags, {}, context);
    print_report(flags, conversion, report, how.json);
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
                      "Resume an unfinished conversion with the same settings; leave a complete one as it is");
    command->add_flag("--dry-run", how->dry_run, "Check everything and print what would be done");
    command->add_flag("--print-recipe", how->print_recipe, "Print these options as a recipe for batch, and do nothing");
    add_threads_option(*command, context);
    add_size(*command, "--max-memory", context.max_memory,
             "Private memory that the run may take, such as 8GB: more lets it convert more layers at once;\n"
             "default: two layers' attention matrices in float32 and 200 MB. The method aligned takes what it needs, "
             "and is refused if that is more")
        ->group(kRunning);
    add_json_option(*command, how->json);
    set_footer(
        *command,
        "By default every stage is chosen and refined on your text, for a KV cache smaller by 68.75%; the output "
        "records\nwhat was chosen.",
        {{"", "mha2mla convert ./model ./model-mla --calibration-text corpus.txt"},
         {"half the cache", "mha2mla convert ./model ./model-mla --calibration-text corpus.txt --kv-reduction 0.5"},
         {"the paper's method", "mha2mla convert ./model ./model-mla --calibration-text corpus.txt --method mha2mla"},
         {"stages by name, with statistics that calibrate saved",
          "mha2mla convert ./model ./model-mla --stats stats.safetensors --rope attention --svd whitened --rope-dim "
          "16"},
         {"without any text", "mha2mla convert ./model ./model-mla --method mha2mla --rope uniform"},
         {"what it would do, without doing it", "mha2mla convert ./model ./model-mla --rope uniform --dry-run"}});
    command->callback([flags, how, command, &context] { run(*flags, *how, *command, context); });
}

}  // namespace mha2mla::tool
