#pragma once
#include <CLI/CLI.hpp>
#include <string>

namespace mha2mla::tool {

/// --help: options in their groups, wrapped to the terminal (100 columns if stdout is not a terminal), with examples.
class HelpFormatter final : public CLI::FormatterBase {
public:
    [[nodiscard]] std::string make_help(const CLI::App* app, std::string name, CLI::AppFormatMode mode) const override;
};

/// Wraps a text into lines of at most `columns` characters, each after `indent` spaces; longer words are not split.
/// Line breaks and leading spaces of the text are kept.
[[nodiscard]] std::string wrap(const std::string& text, std::size_t indent, std::size_t columns);

}  // namespace mha2mla::tool
