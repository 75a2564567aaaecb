#include <algorithm>
#include <memory>

#include "commands.hpp"
#include "conversion.hpp"
#include "gguf_source.hpp"
#include "mha2mla/memory.hpp"
#include "mha2mla/record.hpp"
#include "mha2mla/threads.hpp"
#include "output.hpp"
#include "recipe_settings.hpp"

namespace mha2mla::tool {
namespace {

/// The widths that were used, or the range that is still to be chosen from.
struct Used {
    std::string rope_dim, kv_rank;
};
Used used(const ConversionPlan& plan, const ConvertReport* report, const ModelConfig& config) {
    if (report != nullptr) {
        return {std::to_string(report->selection.rope_dim), std::to_string(report->kv_rank)};
    }
    const auto splits = plan.splits(config);
    return {range_text(splits.front().rope_dim, splits.back().rope_dim),
            range_text(splits.front().kv_rank, splits.back().kv_rank)};
}

std::string method_text(const ConversionPlan& plan, const Used& split) {
    if (plan.layout().shared_rope_key) {
        return "one rotated key, rope-dim " + split.rope_dim + ", one latent, kv-rank " + split.kv_rank +
               (plan.refined() ? ", weights aligned on text" : ", as " + std::string(method_of(plan).name));
    }
    return plan.rope(0).strategy + " selection, rope-dim " + split.rope_dim + ", " +
           std::string(row_of(plan.factorization()).name) + " SVD, kv-rank " + split.kv_rank +
           (plan.aligned() != nullptr ? ", weights aligned on text" : "");
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
    const ConversionPlan& plan = conversion.plan;
    const StagedPlan* stages = plan.staged();
    Json json = plan_json(conversion.cost, 16);
    json["method"] = method_of(plan).name;
    json["layout"] = plan.layout().name;
    json["rope"] = plan.rope(0).strategy;
    json["rope_dim"] = stages != nullptr ? Json(stages->rope.rope_dim) : Json();
    json["kv_rank"] = stages != nullptr ? Json(stages->kv_rank) : Json();
    json["svd"] = row_of(plan.factorization()).name;
    json["aligned"] = plan.refined();
    if (stages == nullptr) json["splits"] = splits_json(plan.splits(conversion.model.config));
    json["output_bytes"] = planned_output_bytes(conversion.model, plan);
    json["memory"] = planned_memory(conversion.model.config, plan, conversion.limits.max_memory);
    return json;
}

Json report_as_json(const ConvertFlags& flags, const Conversion& conversion, const ConvertReport& report) {
    const ConversionPlan& plan = conversion.plan;
    Json json = plan_json(report.plan, 16);
    json["method"] = method_of(plan).name;
    json["layout"] = plan.layout().name;
    json["rope"] = plan.rope(0).strategy;
    json["rope_dim"] = report.selection.rope_dim;
    json["kv_rank"] = report.kv_rank;
    json["svd"] = row_of(plan.factorization()).name;
    json["aligned"] = plan.refined();
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
    const Plan& cost = report != nullptr ? report->plan : conversion.cost;
    const bool undecided = report == nullptr && conversion.plan.aligned() != nullptr;
    const Used split = used(conversion.plan, report, conversion.model.config);
    return {
        {state, flags.source.string() + " -> " + flags.destination.string()},
        {"method", method_text(conversion.plan, split)},
        {"parameters", human_count(cost.parameters_original) + " -> " + (undecided ? "about " : "") +
                           human_count(cost.parameters_converted)},
        {"KV cache per token", human_bytes(cost.original_bytes_per_token) + " -> " +
                                   human_bytes(cost.converted_bytes_per_token) + " bytes at 16 bit, " +
                                   human_reduction(cost.reduction())},
    };
}

void print_plan(const ConvertFlags& flags, const Conversion& conversion, bool as_json) {
    if (as_json) return print_json(plan_as_json(conversion));
    Rows rows = common_rows(flags, conversion, nullptr, "would convert");
    rows.emplace_back(
        "would take",
        memory_text(planned_output_bytes(conversion.model, conversion.plan)) + " of disk and " +
            memory_text(planned_memory(conversion.model.config, conversion.plan, conversion.limits.max_memory)) +
            " of memory");
    print_table(rows);
}

void print_report(const ConvertFlags& flags, const Conversion& conversion, const ConvertReport& report, bool as_json) {
    if (as_json) return print_json(report_as_json(flags, conversion, report));
    Rows rows = common_rows(flags, conversion, &report, report.already_finished ? "already converted" : "converted");
    if (!report.retained_energy.empty() && conversion.plan.factorization() != Factorization::none) {
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

void run(const ConvertFlags& given, const RunFlags& how, const CLI::App& command, Context& context) {
    if (how.print_recipe) return print_json(written(recipe_of(command, given)));
    const ThreadScope threads(context.threads);
    const ImportedSource source(given, context);
    ConvertFlags flags = given;
    flags.source = source.directory();
    Conversion conversion = prepare(flags, context);
    if (how.dry_run) {
        check_destination(conversion.model, flags.destination, conversion.limits);
        check_evaluation(conversion, flags, context);
        return print_plan(flags, conversion, how.json);
    }
    const auto recipe = published(recipe_of(command, flags), conversion.model);
    conversion.provenance.recipe = written(recipe);
    conversion.provenance.command = command_line(recipe);
    const ConvertReport report = run_conversion(conversion, flags, context);
    print_report(flags, conversion, report, how.json);
}

}  // namespace

void add_convert(CLI::App& app, Context& context) {
    auto flags = std::make_shared<ConvertFlags>();
    auto how = std::make_shared<RunFlags>();
    auto* command = app.add_subcommand("convert", "Convert a checkpoint to MLA");
    add_checkpoint_option(*command, flags->source, "source", "Checkpoint directory or GGUF file to convert");
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
        "By default everything is chosen and refined on your text, for a KV cache smaller by 68.75%, and written as\n"
        "DeepSeek-V3, which engines load; the output records what was chosen.",
        {{"", "mha2mla convert ./model ./model-mla --calibration-text corpus.txt"},
         {"half the cache", "mha2mla convert ./model ./model-mla --calibration-text corpus.txt --kv-reduction 0.5"},
         {"with a rotated key for each KV head, which the reference implementation loads",
          "mha2mla convert ./model ./model-mla --calibration-text corpus.txt --layout mha2mla"},
         {"the paper's method", "mha2mla convert ./model ./model-mla --calibration-text corpus.txt --method mha2mla"},
         {"stages by name, with statistics that calibrate saved",
          "mha2mla convert ./model ./model-mla --stats stats.safetensors --rope attention --svd whitened --rope-dim "
          "16"},
         {"a GGUF file", "mha2mla convert model-q8_0.gguf ./model-mla --calibration-text corpus.txt --dtype bf16"},
         {"without any text", "mha2mla convert ./model ./model-mla --method mha2mla --rope uniform"},
         {"what it would do, without doing it", "mha2mla convert ./model ./model-mla --rope uniform --dry-run"}});
    command->callback([flags, how, command, &context] { run(*flags, *how, *command, context); });
}

}  // namespace mha2mla::tool
