#include <algorithm>
#include <cctype>
#include <sstream>

#include "documents.hpp"
#include "mha2mla/version.hpp"

namespace mha2mla::tool {
namespace {

/// Escapes a text so that roff prints it unchanged, with hyphens that can be copied.
std::string roff(const std::string& text) {
    std::string safe;
    for (const char c : text) {
        if (c == '\\') {
            safe += "\\e";
        } else if (c == '-') {
            safe += "\\-";
        } else if ((c == '.' || c == '\'') && (safe.empty() || safe.back() == '\n')) {
            safe += std::string("\\&") + c;
        } else {
            safe += c;
        }
    }
    return safe;
}

/// Text with its line breaks, as in the help.
std::string roff_lines(const std::string& text) {
    std::istringstream lines(text);
    std::string roffed;
    for (std::string line; std::getline(lines, line);) {
        if (!roffed.empty()) roffed += ".br\n";
        const std::size_t start = std::min(line.find_first_not_of(' '), line.size());
        roffed += roff(line.substr(start)) + "\n";
    }
    return roffed;
}

std::string bold(const std::string& text) { return "\\fB" + roff(text) + "\\fR"; }

std::string section(const std::string& name, const std::string& body) {
    return body.empty() ? "" : ".SH " + name + "\n" + body;
}

std::string term(const std::string& head, const std::string& body) { return ".TP\n" + head + "\n" + body; }

std::string option_term(const OptionDoc& option) {
    std::string head;
    for (const auto& name : option.names) head += (head.empty() ? "" : ", ") + bold(name);
    if (!option.is_flag()) head += " \\fI" + roff(option.value) + "\\fR";
    const std::string said = conditions(option);
    return term(head, roff_lines(option.text + (said.empty() ? "" : "\n(" + said + ")")));
}

std::string upper(std::string text) {
    std::transform(text.begin(), text.end(), text.begin(),
                   [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
    return text;
}

std::string page_name(const std::string& command) { return command.empty() ? "mha2mla" : "mha2mla-" + command; }

std::string examples(const CommandDoc& command) {
    std::string body;
    for (const auto& example : command.examples) {
        body += (body.empty() ? "" : ".PP\n") + (example.what.empty() ? "" : roff(example.what) + ":\n") +
                ".PP\n.nf\n" + ".RS\n" + roff(example.command) + "\n.RE\n.fi\n";
    }
    // A heading already begins a paragraph.
    return body.starts_with(".PP\n") ? body.substr(4) : body;
}

std::string see_also(const ProgramDoc& doc, const CommandDoc& command) {
    if (!command.name.empty()) return ".BR mha2mla (1)\n";
    std::string body;
    for (std::size_t i = 0; i < doc.commands.size(); ++i) {
        body +=
            ".BR " + roff(page_name(doc.commands[i].name)) + " (1)" + (i + 1 < doc.commands.size() ? "," : "") + "\n";
    }
    return body;
}

}  // namespace

std::string man_page(const ProgramDoc& doc, const CommandDoc& command) {
    const std::string name = page_name(command.name);
    std::string page = ".TH \"" + roff(upper(name)) + "\" 1 \"\" \"mha2mla " + roff(std::string(version())) + "\"\n";
    page += section("NAME", roff(name) + " \\- " + roff(command.summary) + "\n");
    page += section("SYNOPSIS",
                    ".nh\n" + bold(command.words()) + roff(command.usage().substr(command.words().size())) + "\n.hy\n");
    std::string arguments, commands;
    for (const auto& argument : command.arguments) arguments += option_term(argument);
    for (const auto& [other, summary] : command.commands) commands += term(bold(other), roff_lines(summary));
    page += section("ARGUMENTS", arguments) + section("COMMANDS", commands);
    std::string options;
    for (const auto& group : command.groups) {
        options += ".SS " + roff(group.name) + "\n";
        for (const auto& option : group.options) options += option_term(option);
    }
    page += section("OPTIONS", options) + section("NOTES", roff_lines(command.notes));
    return page + section("EXAMPLES", examples(command)) + section("SEE ALSO", see_also(doc, command));
}

}  // namespace mha2mla::tool
