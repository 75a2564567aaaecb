#pragma once
#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "command_doc.hpp"
#include "context.hpp"

namespace mha2mla::tool {

// add_plan(), add_inspect(), ...: each registers one subcommand with its options, its help and what it runs. The list
// is in CMakeLists.txt.
#define MHA2MLA_COMMAND(name) void add_##name(CLI::App& app, Context& context);
#include "commands.inc"
#undef MHA2MLA_COMMAND

/// Registers all subcommands, in the order of --help.
void add_commands(CLI::App& app, Context& context);

/// The words of a command line in the order of CLI::App::parse(), the last one first. A command of two words, such as
/// "calibrate merge", is one of them, by its name: "calibrate-merge".
[[nodiscard]] std::vector<std::string> command_line(const CLI::App& app, std::vector<std::string> words);

}  // namespace mha2mla::tool
