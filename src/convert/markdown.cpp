#include "markdown.hpp"

#include <algorithm>
#include <array>
#include <cctype>
#include <nlohmann/json.hpp>

#include "mha2mla/printable.hpp"

namespace mha2mla::markdown {
namespace {

/// The most backticks that stand in a row.
std::size_t longest_run(std::string_view text) {
    std::size_t longest = 0;
    std::size_t run = 0;
    for (const char c : text) {
        run = c == '`' ? run + 1 : 0;
        longest = std::max(longest, run);
    }
    return longest;
}

std::string_view trimmed(std::string_view text) {
    const auto first = text.find_first_not_of(" \t");
    if (first == std::string_view::npos) return {};
    return text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

std::string_view unquoted(std::string_view text) {
    const bool quoted = text.size() > 1 && (text.front() == '"' || text.front() == '\'') && text.back() == text.front();
    return quoted ? text.substr(1, text.size() - 2) : text;
}

bool is_word(std::string_view text) {
    const auto allowed = [](unsigned char c) { return c < 0x80 && (std::isalnum(c) != 0 || c == '-' || c == '.'); };
    if (text.empty() || !std::ranges::all_of(text, allowed) || std::isalpha(static_cast<unsigned char>(text[0])) == 0) {
        return false;
    }
    // What YAML takes for something else than text. One of them is a language.
    constexpr std::array<std::string_view, 9> kOthers = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"};
    std::string small(text);
    std::ranges::transform(small, small.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    return std::ranges::find(kOthers, small) == kOthers.end();
}

}  // namespace

std::string text(std::string_view field) {
    constexpr std::string_view kMeaning = "\\`*_[]<>&|~$#!:@";
    std::string escaped;
    for (const char c : printable(field)) {
        if (kMeaning.find(c) != std::string_view::npos) escaped += '\\';
        escaped += c;
    }
    // Renderers make links of these without being asked.
    for (std::size_t at = 0; (at = escaped.find("www.", at)) != std::string::npos; at += 5)
        escaped.insert(at + 3, "\\");
    return escaped;
}

std::string code(std::string_view field) {
    const std::string shown = printable(field);
    const std::string fence(longest_run(shown) + 1, '`');
    const bool spaced = shown.empty() || shown.front() == '`' || shown.back() == '`' || shown.front() == ' ';
    return fence + (spaced ? " " : "") + shown + (spaced ? " " : "") + fence;
}

std::string block(std::string_view language, std::string_view lines) {
    std::string shown;
    for (std::size_t first = 0; first <= lines.size();) {
        const std::size_t end = std::min(lines.find('\n', first), lines.size());
        shown += printable(lines.substr(first, end - first)) + "\n";
        first = end + 1;
    }
    const std::string fence(std::max<std::size_t>(longest_run(shown) + 1, 3), '`');
    return fence + std::string(language) + "\n" + shown + fence + "\n";
}

// The escapes of a JSON string are those of a YAML string in double quotes.
std::string quoted(std::string_view field) { return nlohmann::json(printable(field)).dump(); }

std::string scalar(std::string_view field) { return is_word(field) ? std::string(field) : quoted(field); }

std::string licence_or_language(std::string_view line) {
    constexpr std::array<std::string_view, 4> kKeys = {"license", "license_name", "license_link", "language"};
    const std::size_t colon = std::min(line.find(':'), line.size());
    const std::string_view key = line.substr(0, colon);
    if (std::ranges::find(kKeys, key) == kKeys.end()) return "";
    std::string_view value = trimmed(line.substr(std::min(colon + 1, line.size())));
    const std::string start = std::string(key) + ": ";
    if (!value.starts_with('[') || !value.ends_with(']')) {
        // Anything else that YAML would not take for a text is left out; README.source.md has it.
        const bool is_text = !value.empty() && std::string_view("[{&*!|>%@#,?:-`").find(value[0]) == std::string::npos;
        return is_text ? start + scalar(unquoted(value)) : "";
    }
    value = value.substr(1, value.size() - 2);
    std::string list;
    for (std::size_t first = 0; first <= value.size();) {
        const std::size_t end = std::min(value.find(',', first), value.size());
        const std::string_view item = unquoted(trimmed(value.substr(first, end - first)));
        if (!item.empty()) list += (list.empty() ? "" : ", ") + scalar(item);
        first = end + 1;
    }
    return list.empty() ? "" : start + "[" + list + "]";
}

}  // namespace mha2mla::markdown
