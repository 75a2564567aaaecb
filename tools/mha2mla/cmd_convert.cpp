#include <algorithm>
#include <memory>

#include "commands.hpp"
#include "conversion.hpp"
#include "convert_settings.hpp"
#include "mha2mla/memory.hpp"
#include "mha2mla/threads.hpp"
#include "output.hpp"

namespace mha2mla::tool {
namespace {

/// What was used, or what is asked for where that is still to be chosen.
struct Used {
    std::string rope_dim, kv_rank;
};
Used used(const ConvertOptions& options, const ConvertReport* report, const ModelConfig& config) {
    if (report != nullptr) {
        return {std::to_string(report->selection.rope_dim), std::to_string(report->kv_rank)};
    }
    if (!options.align) return {std::to_string(options.rope.rope_dim), std::to_string(options.kv_rank)};
    const auto splits = possible_splits(config, options.align->options);
    const auto range = [](std::int64_t a, std::int64_t b) {
        const auto [low, high] = std::minmax(a, b);
        return std::to_string(low) + (low == high ? "" : " to " + std::to_string(high));
    };
    return {range(splits.front().rope_dim, splits.back().rope_dim),
            range(splits.front().kv_rank, splits.back().kv_rank)};
}

std::string method_text(const ConvertOptions& options, const Used& split) {
    return options.rope.strategy + " selection, rope-dim " + split.rope_dim + ", " +
           std::string(row_of(options.factorization).name) + " SVD, kv-rank " + split.kv_rank +
           (options.align ? ", weights aligned on text" : "");
}

void print_report(const ConvertFlags& flags, const Conversion& conversion, const ConvertReport* report, bool as_json) {
    const ConvertOptions& options = conversion.options;
    const Plan& plan = report != nullptr ? report->plan : conversion.plan;
    const Used split = used(options, report, conversion.model.config);
    const bool open = report == nullptr && options.align;
    const auto measured = report == nullptr ? nlohmann::ordered_json() : measurement_at(flags.destination);
    if (as_json) {
        auto json = plan_json(plan, 16);
        json["rope"] = options.rope.strategy;
        json["rope_dim"] = nullptr;
        json["kv_rank"] = nullptr;
        if (report != nullptr) {
            json["rope_dim"] = report->selection.rope_dim;
            json["kv_rank"] = report->kv_rank;
        } else if (!open) {
            json["rope_dim"] = options.rope.rope_dim;
            json["kv_rank"] = options.kv_rank;
        }
        json["svd"] = row_of(options.factorization).name;
        json["aligned"] = options.align.has_value();
        if (open) {
            for (const Split& row : possible_splits(conversion.model.config, options.align->options)) {
                json["splits"].push_back({{"rope_dim", row.rope_dim}, {"kv_rank", row.kv_rank}});
            }
        }
        if (report == nullptr) {
            json["output_bytes"] = planned_output_bytes(conversion.model, options);
            json["memory"] = planned_memory(conversion.model.config, options);
        }
        if (report != nullptr) {
            json["retained_energy"] = report->retained_energy;
            if (!report->balance.empty()) json["kv_balance"] = report->balance;
            if (!report->alignment_error.empty()) json["alignment_error"] = report->alignment_error;
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
        {"method", method_text(options, split)},
        {"parameters", human_count(plan.parameters_original) + " -> " + (open ? "about " : "") +
                           human_count(plan.parameters_converted)},
        {"KV cache per token", human_bytes(plan.original_bytes_per_token) + " -> " +
                                   human_bytes(plan.converted_bytes_per_token) + " bytes at 16 bit, " +
                                   human_reduction(plan.reduction())},
    };
    if (report == nullptr) {
        rows.emplace_back("would take", memory_text(planned_output_bytes(conversion.model, options)) + " of disk and " +
                                            memory_text(planned_memory(conversion.model.config, options)) +
                                            " of memory");
    }
    if (report != nullptr && !report->retained_energy.empty() && options.factorization != Factorization::none) {
        const auto [low, high] = std::minmax_element(report->retained_energy.begin(), report->retained_energy.end());
        rows.emplace_back("energy kept by the SVD",
                          fixed(100 * *low, 2) + "% to " + fixed(100 * *high, 2) + "% by layer");
    }
    if (report != nullptr && !report->balance.empty()) {
        const auto [low, high] = std::minmax_element(report->balance.begin(), report->balance.end());
        rows.emplace_back("kv-balance", fixed(*low, 2) + " to " + fixed(*high, 2) + " by layer");
    }
    if (report != nullptr && report->pieces_resumed > 0) {
        rows.emplace_back("resumed", std::to_string(report->pieces_resumed) + " of " + std::to_string(report->pieces) +
                                         " pieces were finished before");
    }
    if (!measured.is_null()) {
        rows.emplace_back("NLL", fixed(measured.at("nll_original")) + " -> " + fixed(measured.at("nll_converted")) +
                                     " nats per token");
    }
    if (report != nullptr && !report->alignment_error.empty()) {
        const auto [low, high] = std::minmax_element(report->alignment_error.begin(), report->alignment_error.end());
        rows.emplace_back("error left", fixed(*low, 5) + " to " + fixed(*high, 5) + " of a hidden state, by layer");
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
        return print_report(flags, conversion, nullptr, how.json);
    }
    const auto recipe = published(recipe_of(command, flags), conversion.model);
    conversion.options.recipe = written(recipe);
    conversion.options.command = command_line(recipe);
    const ConvertReport report = run_conversion(conversion, flags, {}, context);
    print_report(flags, conversion, &report, how.json);
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
             "default: two layers' attention matrices in float32 and 200 MB. The method aligned takes what it needs, "
             "and is refused if that is more")
        ->group(kRunning);
    add_json_option(*command, how->json);
    set_footer(
        *command,
        "By default everything is chosen and refined on your text, for a cache smaller by 68.75%; the output records "
        "what\n"
        "was chosen.",
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
