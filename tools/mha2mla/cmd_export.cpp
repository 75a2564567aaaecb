#include <algorithm>
#include <memory>

#include "commands.hpp"
#include "mha2mla/gguf_export.hpp"
#include "mha2mla/threads.hpp"
#include "options.hpp"
#include "output.hpp"
#include "output_paths.hpp"

namespace mha2mla::tool {
namespace {

struct ExportFlags {
    std::filesystem::path model, file;
    GgufExportRequest request;
    bool json = false;
};

/// What can be written, in the order of the help.
struct TypeRow {
    BlockType type;
    std::string_view name;
};
constexpr std::array<TypeRow, 6> kTypes = {{
    {BlockType::f32, "f32"},
    {BlockType::f16, "f16"},
    {BlockType::bf16, "bf16"},
    {BlockType::q8_0, "q8_0"},
    {BlockType::q4_0, "q4_0"},
    {BlockType::q4_k, "q4_k"},
}};

using Json = nlohmann::ordered_json;

Json as_json(const ExportFlags& flags, const GgufExportReport& report) {
    Json json;
    json["output"] = flags.file.string();
    json["output_bytes"] = report.bytes;
    json["architecture"] = row_of(flags.request.form).architecture;
    json["vocabulary"] = report.vocabulary;
    json["kv_cache_bytes_per_token"] = 2 * report.cached_numbers;
    json["types"] = Json::object();
    for (const auto& [type, tensors, bytes] : report.types) {
        json["types"][std::string(format_of(type).name)] = {{"tensors", tensors}, {"bytes", bytes}};
    }
    json["other_types"] = Json::array();
    for (const auto& [tensor, type, reason] : report.others) {
        json["other_types"].push_back({{"tensor", tensor}, {"type", format_of(type).name}, {"reason", reason}});
    }
    return json;
}

/// "4 tensors, such as blk.0.attn_k_b.weight: rows of 32 are no whole blocks of 256", once for each type and reason.
void add_others(const GgufExportReport& report, std::vector<std::pair<std::string, std::string>>& rows) {
    for (auto first = report.others.begin(); first != report.others.end(); ++first) {
        const auto same = [&](const auto& other) { return other.type == first->type && other.reason == first->reason; };
        if (std::any_of(report.others.begin(), first, same)) continue;
        const auto tensors = std::count_if(first, report.others.end(), same);
        rows.emplace_back("  " + std::string(format_of(first->type).name) + " instead",
                          (tensors == 1 ? first->tensor : std::to_string(tensors) + " such as " + first->tensor) +
                              ": " + first->reason);
    }
}

void print_report(const ExportFlags& flags, const GgufExportReport& report) {
    std::vector<std::pair<std::string, std::string>> rows = {
        {"written", flags.model.string() + " -> " + flags.file.string() + ", " +
                        human_bytes(static_cast<double>(report.bytes)) + " bytes"},
        {"architecture", std::string(row_of(flags.request.form).architecture)},
        {"vocabulary", report.vocabulary},
        {"KV cache per token", human_bytes(2.0 * static_cast<double>(report.cached_numbers)) + " bytes at 16 bit"},
    };
    for (const auto& [type, tensors, bytes] : report.types) {
        rows.emplace_back("  " + std::string(format_of(type).name),
                          std::to_string(tensors) + " tensors, " + human_bytes(static_cast<double>(bytes)) + " bytes");
    }
    add_others(report, rows);
    print_table(rows);
}

void run(const ExportFlags& flags, Context& context) {
    // Whether a GGUF file may be replaced is asked by the library.
    check_output_paths({{"the output", flags.file, "GGUF"}}, {flags.model}, true);
    const ThreadScope threads(context.threads);
    const Model model = open_model(flags.model, context.ignore_unused, context);
    const GgufExportReport report = export_gguf(model, flags.file, flags.request, context.observer);
    context.observer.finish();
    if (flags.json) return print_json(as_json(flags, report));
    print_report(flags, report);
}

}  // namespace

void add_export(CLI::App& app, Context& context) {
    auto flags = std::make_shared<ExportFlags>();
    auto* command = app.add_subcommand("export", "Write a converted checkpoint as GGUF, which llama.cpp loads");
    add_checkpoint_option(*command, flags->model, "model", "Checkpoint directory of layout deepseek");
    add_ignore_unused_option(*command, context.ignore_unused);
    command->option_defaults()->group(kOutput);
    command->add_option("file", flags->file, "GGUF file to create")->required()->type_name("FILE")->group(kInput);
    add_choice(
        *command, "--type", flags->request.type, kTypes, &TypeRow::type,
        "Type of the matrices; vectors are f32. A matrix whose rows are no whole blocks of the type gets another "
        "one,\nwhich the output tells");
    std::string forms = "What engines take the attention for:";
    for (const auto& row : kGgufForms) {
        forms += "\n" + std::string(row.name) + ": architecture " + std::string(row.architecture) + ", " +
                 std::string(row.what);
    }
    add_choice(*command, "--form", flags->request.form, kGgufForms, &GgufFormRow::form, forms);
    command->add_flag("--overwrite", flags->request.overwrite, "Replace a file that exists");
    add_threads_option(*command, context);
    add_json_option(*command, flags->json);
    set_footer(
        *command, "",
        {{"", "mha2mla export ./model-mla model-mla.gguf"},
         {"in 4 bits", "mha2mla export ./model-mla model-mla.gguf --type q4_k"},
         {"of a model with biases or scaled frequencies", "mha2mla export ./model-mla model-mla.gguf --form mqa"}});
    command->callback([flags, &context] { run(*flags, context); });
}

}  // namespace mha2mla::tool
