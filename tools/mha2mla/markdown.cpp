#include <string_view>

#include "documents.hpp"

namespace mha2mla::tool {
namespace {

constexpr std::string_view kBegin = "<!-- made by tools/update_docs.sh: begin -->\n";
constexpr std::string_view kEnd = "<!-- made by tools/update_docs.sh: end -->\n";

/// Escapes < and |, which have a meaning in Markdown tables outside of code.
std::string cell(const std::string& text) {
    std::string safe;
    for (const char c : text) {
        if (c == '|') safe += '\\';
        if (c == '\n') {
            safe += "<br>";
        } else if (c == '<') {
            safe += "&lt;";
        } else {
            safe += c;
        }
    }
    return safe;
}

/// Escapes pipes, which end a table cell even in a code span.
std::string code(const std::string& text) {
    std::string safe;
    for (const char c : text) safe += c == '|' ? std::string("\\|") : std::string(1, c);
    return "`" + safe + "`";
}

std::string table(const std::string& name, const std::vector<OptionDoc>& options) {
    std::string text = "\n| " + name + " | |\n|---|---|\n";
    for (const auto& option : options) {
        const std::string said = conditions(option);
        text += "| " + code(signature(option)) + " | " + cell(option.text) +
                (said.empty() ? "" : "<br>*" + cell(said) + "*") + " |\n";
    }
    return text;
}

std::string generated(const CommandDoc& command) {
    std::string text = "\n```\n" + command.usage() + "\n```\n";
    if (!command.arguments.empty()) text += table("argument", command.arguments);
    for (const auto& group : command.groups) text += table(group.name, group.options);
    if (!command.notes.empty()) text += "\n" + command.notes;
    if (!command.examples.empty()) {
        text += "\n```sh\n";
        for (const auto& example : command.examples) {
            if (!example.what.empty()) text += "# " + example.what + "\n";
            text += example.command + "\n";
        }
        text += "```\n";
    }
    return text + "\n";
}

}  // namespace

std::string updated_page(const std::string& page, const CommandDoc& command, const std::string& more) {
    const auto begin = page.find(kBegin), end = page.find(kEnd);
    const bool marked = begin != std::string::npos && end != std::string::npos && begin < end;
    const std::string before =
        marked ? page.substr(0, begin) : "# " + command.words() + "\n\n" + command.summary + ".\n\n";
    const std::string after = marked ? page.substr(end + kEnd.size()) : page;
    return before + std::string(kBegin) + generated(command) + (more.empty() ? "" : more + "\n") + std::string(kEnd) +
           after;
}

}  // namespace mha2mla::tool
