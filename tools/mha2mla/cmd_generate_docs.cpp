#include <fstream>
#include <memory>

#include "commands.hpp"
#include "documents.hpp"
#include "family_table.hpp"
#include "mha2mla/atomic_file.hpp"
#include "mha2mla/checkpoint.hpp"
#include "mha2mla/error.hpp"
#include "options.hpp"

namespace mha2mla::tool {
namespace {

namespace fs = std::filesystem;

struct GenerateDocsFlags {
    fs::path directory, pages;
};

std::string read_page(const fs::path& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};  // empty where there is none yet
}

void make_directory(const fs::path& path) {
    std::error_code error;
    fs::create_directories(path, error);
    if (error) throw Error(ErrorCode::io, path.string() + ": cannot create the directory: " + error.message());
}

void run(const GenerateDocsFlags& flags, const ProgramDoc& doc) {
    if (!flags.directory.empty()) {
        make_directory(flags.directory / "man1");
        write_file_atomically(flags.directory / "man1" / "mha2mla.1", man_page(doc, doc.program));
        for (const auto& command : doc.commands) {
            write_file_atomically(flags.directory / "man1" / ("mha2mla-" + command.name + ".1"),
                                  man_page(doc, command));
        }
        for (const auto& shell : kShells) {
            make_directory(flags.directory / shell.name);
            write_file_atomically(flags.directory / shell.name / shell.file_name, shell.render(doc));
        }
    }
    if (flags.pages.empty()) return;
    make_directory(flags.pages);
    for (const auto& command : doc.commands) {
        const fs::path path = flags.pages / (command.name + ".md");
        write_file_atomically(
            path, updated_page(read_page(path), command, command.name == "families" ? family_markdown() : ""));
    }
}

}  // namespace

void add_generate_docs(CLI::App& app, Context&) {
    auto flags = std::make_shared<GenerateDocsFlags>();
    auto* command = app.add_subcommand("generate-docs", "Write man pages and completions; used by the build");
    command->group("");  // not for users
    command->add_option("--output", flags->directory, "Directory for man1/, bash/, zsh/ and fish/")->type_name("DIR");
    command->add_option("--pages", flags->pages, "Directory of Markdown pages to bring up to date")->type_name("DIR");
    command->callback([flags, &app] { run(*flags, describe_program(app)); });
}

}  // namespace mha2mla::tool
