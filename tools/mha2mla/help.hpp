#pragma once
#include <CLI/CLI.hpp>
#include <string>

namespace mha2mla::tool {

/// --help: options in their groups, wrapped to the terminal (80 columns where stdout is none), with examples.
class HelpFormatter final : public CLI::FormatterBase {
public:
    [[nodiscard]] std::string make_help(const CLI::App* app, std::string name, CLI::AppFormatMode mode) const override;
};

/// Text in lines of at most `columns` characters where words allow it, each behind `indent` spaces; line breaks and
/// leading spaces of the text stay.
[[nodiscard]] std::string wrap(const std::string& text, std::size_t indent, std::size_t columns);

}  // namespace mha2mla::tool
