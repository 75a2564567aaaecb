#pragma once
/// A description of the program and its subcommands, taken from the CLI11 description that parses the command line.
/// Help, man pages, completions and the pages in docs/commands are generated from it, so that they agree with the
/// program.

#include <CLI/CLI.hpp>
#include <string>
#include <utility>
#include <vector>

namespace mha2mla::tool {

/// The group of the options that every command has, shown last.
inline constexpr const char* kMessages = "Messages";

struct OptionDoc {
    std::vector<std::string> names;  // "-o", "--output"; of an argument: its name alone
    std::string value;               // "FILE", "N", "{a,b}"; empty for a flag
    std::string initial;             // the default as text; may be empty
    std::vector<std::string> needs, excludes;
    std::string text;  // several lines if it lists choices
    bool required = false, repeats = false;

    [[nodiscard]] bool is_flag() const { return value.empty(); }
    /// a and b of a value "{a,b}"; empty if the value is not a choice.
    [[nodiscard]] std::vector<std::string> choices() const;
};

struct OptionGroup {
    std::string name;
    std::vector<OptionDoc> options;
};

struct Example {
    std::string what;  // may be empty
    std::string command;
};

struct CommandDoc {
    std::string name;  // "convert", "calibrate-merge"; of the program itself: ""
    std::string summary;
    std::vector<OptionDoc> arguments;
    std::vector<OptionGroup> groups;
    std::string notes;
    std::vector<Example> examples;
    std::vector<std::pair<std::string, std::string>> commands;  // name and summary, of the program only

    /// "mha2mla convert", "mha2mla calibrate merge"
    [[nodiscard]] std::string words() const;
    /// "mha2mla convert [OPTIONS] source destination"
    [[nodiscard]] std::string usage() const;
};

/// Notes and examples below a command's help.
void set_footer(CLI::App& command, const std::string& notes, const std::vector<Example>& examples);

[[nodiscard]] CommandDoc describe(const CLI::App& app);
/// The program and all its commands.
struct ProgramDoc {
    CommandDoc program;
    std::vector<CommandDoc> commands;  // the visible ones, in the order of --help
};
[[nodiscard]] ProgramDoc describe_program(const CLI::App& program);

/// "-o, --output FILE"
[[nodiscard]] std::string signature(const OptionDoc& option);
/// Remarks on an option besides its text: default, needs, excludes, required. May be empty.
[[nodiscard]] std::string conditions(const OptionDoc& option);

}  // namespace mha2mla::tool
