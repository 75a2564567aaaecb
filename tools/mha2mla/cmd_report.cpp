#include <map>
#include <memory>

#include "commands.hpp"
#include "mha2mla/atomic_file.hpp"
#include "mha2mla/error.hpp"
#include "mha2mla/report.hpp"
#include "mha2mla/threads.hpp"
#include "options.hpp"
#include "output.hpp"
#include "output_paths.hpp"

namespace mha2mla::tool {
namespace {

constexpr const char* kStdout = "-";

struct ReportFlags {
    std::filesystem::path stats, other, checkpoint;
    std::vector<std::filesystem::path> training;
    std::map<std::string, std::filesystem::path> outputs;  // by format
    std::optional<double> rope_theta;
    std::int64_t rope_dim = 0;
    bool no_spectra = false, overwrite = false;

    /// CSV has no place for spectra.
    [[nodiscard]] bool wants_spectra() const {
        return !checkpoint.empty() && !no_spectra && (outputs.contains("html") || outputs.contains("json"));
    }
};

/// Before any work: outputs that would overwrite each other or an input, and directories that are not there.
void check_outputs(const ReportFlags& flags) {
    if (flags.outputs.empty()) {
        throw Error(ErrorCode::usage, "nothing to write; give --html FILE, --csv FILE or --json FILE, - for stdout");
    }
    std::vector<OutputPath> outputs;
    std::string stdout_format;
    for (const auto& [format, path] : flags.outputs) {
        if (path != kStdout) {
            outputs.push_back({"--" + format, path, format == "csv" ? "layer,kv_head,pair,theta" : "mha2mla report"});
            continue;
        }
        if (!stdout_format.empty()) {
            throw Error(ErrorCode::usage, "--" + stdout_format + " and --" + format + " both name stdout");
        }
        stdout_format = format;
    }
    std::vector<std::filesystem::path> inputs = {flags.stats, flags.other, flags.checkpoint};
    inputs.insert(inputs.end(), flags.training.begin(), flags.training.end());
    check_output_paths(outputs, inputs, flags.overwrite);
}

NamedStats load_named(const std::filesystem::path& path) { return {path.string(), load_stats(path)}; }

ModelConfig fitting_config(const NamedStats& stats, const std::filesystem::path& directory) {
    ModelConfig config = read_config(directory / "config.json");
    check_stats_fit(stats.stats, config, stats.name);
    return config;
}

std::vector<double> frequencies_of(const ModelConfig& config) { return config.rules.layers.front().rotary.frequencies; }

/// From --rope-theta, --checkpoint, or the model that the statistics name if it is still there; else unknown.
RotaryFrequencies find_frequencies(const ReportFlags& flags, const NamedStats& stats, Context& context) {
    if (flags.rope_theta) {
        return {rope_frequencies(*flags.rope_theta, 2 * stats.stats.pairs),
                "--rope-theta " + number(*flags.rope_theta).dump() + ", without scaling"};
    }
    if (!flags.checkpoint.empty()) {
        return {frequencies_of(fitting_config(stats, flags.checkpoint)), (flags.checkpoint / "config.json").string()};
    }
    const std::filesystem::path recorded = stats.stats.model;
    std::error_code ignored;
    if (!recorded.empty() && std::filesystem::is_regular_file(recorded / "config.json", ignored)) {
        try {
            return {frequencies_of(fitting_config(stats, recorded)),
                    (recorded / "config.json").string() + ", the model that the statistics name"};
        } catch (const Error& error) {
            context.observer.warn("frequencies are left out: " + std::string(error.what()));
        }
    }
    return {{}, "unknown; --checkpoint DIR or --rope-theta BETA adds them"};
}

std::vector<LayerSpectra> measure_spectra(const ReportFlags& flags, const NamedStats& stats, std::int64_t rope_dim,
                                          Context& context) {
    if (!flags.wants_spectra()) return {};
    const Model model = open_model(flags.checkpoint, context.ignore_unused, context);
    check_stats_fit(stats.stats, model.config, stats.name);
    return layer_spectra(model, report_selection(stats, rope_dim), context.observer);
}

void print_summary(const ReportFlags& flags, const Report& report) {
    const auto r = static_cast<std::size_t>(report.rope_dim / 2 - 1);
    double share = 0;
    for (const auto& layer : report.layers) share += layer.top_share[r] / static_cast<double>(report.layers.size());
    std::vector<std::pair<std::string, std::string>> rows = {
        {"statistics", flags.stats.string()},
        {"frequencies", report.frequencies.source},
        {"rope-dim", std::to_string(report.rope_dim) + " of " + std::to_string(report.shape.head_dim) + ": the " +
                         std::to_string(r + 1) + " largest pairs of a head hold " + fixed(100 * share, 1) +
                         "% of its score"},
    };
    if (report.comparison) {
        double spearman = 0;
        for (const auto& layer : report.comparison->layers) {
            spearman += layer.spearman / static_cast<double>(report.layers.size());
        }
        rows.emplace_back("compared with", flags.other.string() + ": mean Spearman " + fixed(spearman, 3) + ", " +
                                               std::to_string(report.comparison->changes.size()) +
                                               " KV heads keep other pairs");
    }
    for (const auto& [format, path] : flags.outputs) rows.emplace_back(format, path.string());
    print_table(rows);
}

/// @return whether it went to stdout.
bool write_output(const std::filesystem::path& path, const std::string& text) {
    if (path != kStdout) {
        write_file_atomically(path, text);
        return false;
    }
    (void)std::fwrite(text.data(), 1, text.size(), stdout);  // flush_stdout() tells of failures
    return true;
}

void report_training(const ReportFlags& flags) {
    if (flags.outputs.size() != 1 || !flags.outputs.contains("html")) {
        throw Error(ErrorCode::usage, "--training is drawn as a page: give --html FILE, and no other format");
    }
    std::vector<TrainingCurves> runs;
    for (const auto& log : flags.training) runs.push_back(read_training_log(log));
    const std::filesystem::path& output = flags.outputs.at("html");
    if (write_output(output, training_html(runs))) return;
    std::vector<std::pair<std::string, std::string>> rows;
    for (const TrainingCurves& run : runs) {
        rows.emplace_back(run.name, std::to_string(run.loss.size()) + " steps" +
                                        (run.nll.empty() ? ""
                                                         : ", NLL " + fixed(run.nll.front().second) + " to " +
                                                               fixed(run.nll.back().second)));
    }
    rows.emplace_back("html", output.string());
    print_table(rows);
}

void run(const ReportFlags& flags, Context& context) {
    if (flags.stats.empty() == flags.training.empty()) {
        throw Error(ErrorCode::usage, "give either a statistics file or --training LOG");
    }
    check_outputs(flags);
    if (!flags.training.empty()) return report_training(flags);
    const ThreadScope threads(context.threads);
    NamedStats stats = load_named(flags.stats);
    ReportOptions options;
    options.rope_dim = report_rope_dim(shape_of(stats), flags.rope_dim);
    if (!flags.other.empty()) options.other = load_named(flags.other);
    options.frequencies = find_frequencies(flags, stats, context);
    options.spectra = measure_spectra(flags, stats, options.rope_dim, context);
    const Report report = make_report(std::move(stats), std::move(options));
    bool printed = false;
    for (const auto& format : report_formats()) {
        const auto output = flags.outputs.find(std::string(format.name));
        if (output == flags.outputs.end()) continue;
        printed = write_output(output->second, format.render(report)) || printed;
    }
    if (!printed) print_summary(flags, report);
}

}  // namespace

void add_report(CLI::App& app, Context& context) {
    auto flags = std::make_shared<ReportFlags>();
    auto* command =
        app.add_subcommand("report", "Figures and tables of the statistics that calibrate wrote, or of training runs");
    add_ignore_unused_option(*command, context.ignore_unused);
    command->option_defaults()->group(kInput);
    auto* stats = command->add_option("stats", flags->stats, "Statistics file that calibrate wrote");
    stats->type_name("FILE");
    command
        ->add_option("--training", flags->training,
                     "Logs of finetune (training.jsonl) instead of statistics; several are drawn together")
        ->type_name("FILE")
        ->excludes(stats);
    auto* checkpoint = command->add_option("--checkpoint", flags->checkpoint,
                                           "The model of the statistics: adds its frequencies, the singular values of "
                                           "its keys and values, and the energy that each --kv-rank keeps");
    checkpoint->type_name("DIR");
    command
        ->add_flag("--no-spectra", flags->no_spectra,
                   "Of --checkpoint only the frequencies; singular values take three decompositions a layer")
        ->needs(checkpoint);
    command->add_option("--rope-theta", flags->rope_theta, "Base of the frequencies, if there is no checkpoint")
        ->check(number_in(0, std::numeric_limits<double>::max(), Least::excluded))
        ->type_name("BETA")
        ->excludes(checkpoint);
    command->add_option("--compare", flags->other, "Other statistics of the same shape, to compare with")
        ->type_name("FILE");
    command
        ->add_option_function<std::int64_t>(
            "--rope-dim", [flags](const auto value) { flags->rope_dim = value; },
            "Dimensions of each head that keep RoPE (d_r), which the page can change; default: head_dim/8, at least 2")
        ->check(in_range(2, 512))
        ->type_name("N")
        ->group(kMethod);
    for (const auto& format : report_formats()) {
        const std::string name(format.name);
        command
            ->add_option_function<std::filesystem::path>(
                "--" + name, [flags, name](const auto& path) { flags->outputs[name] = path; },
                "Write " + std::string(format.what) + "; - is stdout")
            ->type_name("FILE")
            ->group(kOutput);
    }
    command->add_flag("--overwrite", flags->overwrite, "Replace files that exist, also those that are no reports")
        ->group(kOutput);
    add_threads_option(*command, context);
    set_footer(
        *command, "",
        {{"a page to look at", "mha2mla report stats.safetensors --checkpoint ./model --html report.html"},
         {"a table for other tools", "mha2mla report stats.safetensors --csv -"},
         {"two training runs", "mha2mla report --training a/training.jsonl b/training.jsonl --html training.html"},
         {"what more text changed", "mha2mla report more.safetensors --compare stats.safetensors --html report.html"}});
    command->callback([flags, &context] { run(*flags, context); });
}

}  // namespace mha2mla::tool
