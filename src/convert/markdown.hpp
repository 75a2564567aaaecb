#pragma once
/// Fields of any content as parts of a page in Markdown and of its front matter in YAML: none can be more than text.

#include <string>
#include <string_view>

namespace mha2mla::markdown {

/// As text within a line.
[[nodiscard]] std::string text(std::string_view field);
/// As code within a line.
[[nodiscard]] std::string code(std::string_view field);
/// As lines of code.
[[nodiscard]] std::string block(std::string_view language, std::string_view lines);
/// As a scalar of YAML in double quotes.
[[nodiscard]] std::string quoted(std::string_view field);
/// As a scalar of YAML: plain if it is a word, otherwise in double quotes.
[[nodiscard]] std::string scalar(std::string_view field);
/// A line of other front matter that says licence or language, written anew; empty for any other line.
[[nodiscard]] std::string licence_or_language(std::string_view line);

}  // namespace mha2mla::markdown
