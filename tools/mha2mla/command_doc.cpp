#include "command_doc.hpp"

#include <algorithm>
#include <sstream>

namespace mha2mla::tool {
namespace {

constexpr std::string_view kExamples = "Examples:";
constexpr std::string_view kExample = "Example: ";

std::string join(const std::vector<std::string>& words, const std::string& between) {
    std::string text;
    for (const auto& word : words) text += (text.empty() ? "" : between) + word;
    return text;
}

OptionDoc describe_option(const CLI::Option& option) {
    OptionDoc doc;
    if (option.get_positional()) {
        doc.names = {option.get_name(true, false)};
    } else {
        for (const auto& name : option.get_snames()) doc.names.push_back("-" + name);
        for (const auto& name : option.get_lnames()) doc.names.push_back("--" + name);
    }
    if (option.get_type_size() != 0) {
        doc.value = option.get_type_name();
        doc.initial = option.get_default_str();
    }
    for (const auto* other : option.get_needs()) doc.needs.push_back(other->get_name());
    for (const auto* other : option.get_excludes()) doc.excludes.push_back(other->get_name());
    doc.text = option.get_description();
    doc.required = option.get_required();
    doc.repeats = option.get_expected_max() >= CLI::detail::expected_max_vector_size;
    return doc;
}

/// Parses the footer of set_footer(), or the single line "Example: ..." of a command without notes.
void read_footer(const std::string& footer, CommandDoc& doc) {
    std::istringstream lines(footer);
    bool in_examples = false;
    std::string what;
    for (std::string line; std::getline(lines, line);) {
        if (line == kExamples) {
            in_examples = true;
        } else if (line.starts_with(kExample)) {
            doc.examples.push_back({"", line.substr(kExample.size())});
        } else if (!in_examples) {
            doc.notes += line + "\n";
        } else if (line.starts_with("  # ")) {
            what = line.substr(4);
        } else if (line.size() > 2) {
            doc.examples.push_back({std::exchange(what, ""), line.substr(2)});
        }
    }
}

}  // namespace

std::vector<std::string> OptionDoc::choices() const {
    std::vector<std::string> found;
    if (value.size() < 2 || value.front() != '{' || value.back() != '}') return found;
    std::istringstream words(value.substr(1, value.size() - 2));
    for (std::string word; std::getline(words, word, ',');) found.push_back(word);
    return found;
}

std::string CommandDoc::words() const {
    std::string text = name.empty() ? "mha2mla" : "mha2mla " + name;
    std::ranges::replace(text, '-', ' ');
    return text;
}

std::string CommandDoc::usage() const {
    std::string text = words() + " [OPTIONS]";
    for (const auto& argument : arguments) {
        const std::string word = argument.names.front() + (argument.repeats ? "..." : "");
        text += argument.required ? " " + word : " [" + word + "]";
    }
    return commands.empty() ? text : text + " COMMAND ...";
}

void set_footer(CLI::App& command, const std::string& notes, const std::vector<Example>& examples) {
    std::string text = notes.empty() ? "" : notes + "\n";
    text += kExamples;
    for (const auto& example : examples) {
        if (!example.what.empty()) text += "\n  # " + example.what;
        text += "\n  " + example.command;
    }
    command.footer(text);
}

CommandDoc describe(const CLI::App& app) {
    CommandDoc doc;
    doc.name = app.get_parent() == nullptr ? "" : app.get_name();
    doc.summary = app.get_description();
    for (const auto& group : app.get_groups()) {
        if (group.empty()) continue;
        OptionGroup described{group, {}};
        for (const auto* option : app.get_options({})) {
            if (option->get_group() != group) continue;
            auto& list = option->get_positional() ? doc.arguments : described.options;
            list.push_back(describe_option(*option));
        }
        if (!described.options.empty()) doc.groups.push_back(std::move(described));
    }
    std::stable_partition(doc.groups.begin(), doc.groups.end(),
                          [](const OptionGroup& group) { return group.name != kMessages; });
    read_footer(app.get_footer(), doc);
    for (const auto* command : app.get_subcommands([](const CLI::App* sub) { return !sub->get_group().empty(); })) {
        doc.commands.emplace_back(command->get_name(), command->get_description());
    }
    return doc;
}

ProgramDoc describe_program(const CLI::App& program) {
    ProgramDoc doc{describe(program), {}};
    for (const auto& [name, summary] : doc.program.commands) {
        doc.commands.push_back(describe(*program.get_subcommand(name)));
    }
    return doc;
}

std::string signature(const OptionDoc& option) {
    return join(option.names, ", ") + (option.is_flag() ? "" : " " + option.value) + (option.repeats ? "..." : "");
}

std::string conditions(const OptionDoc& option) {
    std::vector<std::string> said;
    if (!option.initial.empty()) said.push_back("default: " + option.initial);
    if (option.required && option.names.front().starts_with("-")) said.emplace_back("required");
    if (!option.needs.empty()) said.push_back("only with " + join(option.needs, ", "));
    if (!option.excludes.empty()) said.push_back("not with " + join(option.excludes, ", "));
    return join(said, "; ");
}

}  // namespace mha2mla::tool
