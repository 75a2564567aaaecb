#include "help.hpp"

#include <unistd.h>

#include <algorithm>
#include <sstream>

#include "command_doc.hpp"
#include "output.hpp"

namespace mha2mla::tool {
namespace {

constexpr std::size_t kTextColumn = 30;     // column of the descriptions
constexpr std::size_t kNarrow = 60;         // below this width, descriptions are on a line of their own
constexpr std::size_t kUsualColumns = 100;  // if the output is not a terminal
constexpr std::size_t kMostColumns = 120;   // longer lines are hard to read

std::size_t help_columns() { return std::min(terminal_columns(STDOUT_FILENO).value_or(kUsualColumns), kMostColumns); }

/// "  head   text", with the text in its column.
std::string entry(const std::string& head, const std::string& text, std::size_t columns) {
    if (columns < kNarrow) return wrap(head, 2, columns) + wrap(text, 4, columns);
    const std::string body = wrap(text, kTextColumn, columns);
    if (head.size() + 4 > kTextColumn || body.empty()) return "  " + head + "\n" + body;
    return "  " + head + std::string(kTextColumn - 2 - head.size(), ' ') + body.substr(kTextColumn);
}

std::string option_entry(const OptionDoc& option, std::size_t columns) {
    const std::string said = conditions(option);
    return entry(signature(option), option.text + (said.empty() ? "" : "\n(" + said + ")"), columns);
}

}  // namespace

std::string wrap(const std::string& text, std::size_t indent, std::size_t columns) {
    std::istringstream lines(text);
    std::string wrapped;
    for (std::string line; std::getline(lines, line);) {
        const std::size_t own = std::min(line.find_first_not_of(' '), line.size());
        std::string current(indent + own, ' ');
        bool is_first = true;
        std::istringstream words(line);
        for (std::string word; words >> word;) {
            if (!is_first && current.size() + 1 + word.size() > columns) {
                wrapped += current + '\n';
                current = std::string(indent + own + (own > 0 ? 2 : 0), ' ');
                is_first = true;
            }
            current += (is_first ? "" : " ") + word;
            is_first = false;
        }
        wrapped += (line.empty() ? "" : current) + '\n';
    }
    return wrapped;
}

std::string HelpFormatter::make_help(const CLI::App* app, std::string, CLI::AppFormatMode) const {
    const std::size_t columns = help_columns();
    const CommandDoc doc = describe(*app);
    std::string text = wrap(doc.summary, 0, columns) + wrap("Usage: " + doc.usage(), 0, columns);
    if (!doc.arguments.empty()) text += "\nArguments:\n";
    for (const auto& argument : doc.arguments) {
        text += entry(argument.names.front() + " " + argument.value, argument.text, columns);
    }
    if (!doc.commands.empty()) text += "\nCommands:\n";
    for (const auto& [command, summary] : doc.commands) text += entry(command, summary, columns);
    for (const auto& group : doc.groups) {
        text += "\n" + group.name + ":\n";
        for (const auto& option : group.options) text += option_entry(option, columns);
    }
    if (!doc.notes.empty()) text += "\n" + wrap(doc.notes, 0, columns);
    if (!doc.examples.empty()) text += "\nExamples:\n";
    for (const auto& example : doc.examples) {
        if (!example.what.empty()) text += "  # " + example.what + "\n";
        text += "  " + example.command + "\n";  // never wrapped, so that it can be copied
    }
    return text;
}

}  // namespace mha2mla::tool
