#include <array>
#include <memory>

#include "commands.hpp"
#include "mha2mla/gguf_import.hpp"
#include "options.hpp"
#include "output.hpp"

namespace mha2mla::tool {
namespace {

struct ImportFlags {
    std::filesystem::path file, directory;
    GgufImportRequest request;
    bool json = false;
};

void run(const ImportFlags& flags, Context& context) {
    const GgufImportReport report = import_gguf(flags.file, flags.directory, flags.request, context.observer);
    context.observer.finish();
    if (flags.json) {
        nlohmann::ordered_json json;
        json["output"] = flags.directory.string();
        json["output_bytes"] = report.bytes;
        json["architecture"] = report.architecture;
        json["vocabulary"] = report.vocabulary;
        json["dtype"] = dtype_name(report.dtype);
        json["tensors"] = report.tensors;
        return print_json(json);
    }
    print_table({{"written", flags.file.string() + " -> " + flags.directory.string()},
                 {"architecture", report.architecture},
                 {"vocabulary", report.vocabulary},
                 {"weights", std::to_string(report.tensors) + " tensors, " + std::string(dtype_name(report.dtype)) +
                                 ", " + human_bytes(static_cast<double>(report.bytes)) + " bytes"}});
}

}  // namespace

void add_import(CLI::App& app, Context& context) {
    auto flags = std::make_shared<ImportFlags>();
    auto* command = app.add_subcommand("import", "Make a checkpoint directory of a GGUF file");
    command->add_option("file", flags->file, "GGUF file of architecture llama, qwen2, qwen3 or gemma3")
        ->required()
        ->type_name("FILE")
        ->group(kInput);
    add_checkpoint_option(*command, flags->directory, "destination", "Directory to create");
    command->option_defaults()->group(kOutput);
    add_dtype_option(*command, flags->request.dtype,
                     "dtype of the weights; auto is that of the file's matrices, f16 for quantised ones");
    add_size(*command, "--max-shard-size", flags->request.max_shard_bytes, "Largest weight file, such as 5GB or 500MiB")
        ->default_str("5GB");
    command->add_flag("--overwrite", flags->request.overwrite, "Replace a destination that holds files");
    add_json_option(*command, flags->json);
    set_footer(
        *command, "",
        {{"", "mha2mla import model.gguf ./model"},
         {"quantised, to be converted to layout deepseek", "mha2mla import model-q8_0.gguf ./model --dtype bf16"}});
    command->callback([flags, &context] { run(*flags, context); });
}

}  // namespace mha2mla::tool
