#pragma once
/// Documents that are generated from the descriptions in command_doc.hpp.

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "command_doc.hpp"

namespace mha2mla::tool {

/// mha2mla.1 or mha2mla-<command>.1, in man(7).
[[nodiscard]] std::string man_page(const ProgramDoc& doc, const CommandDoc& command);

[[nodiscard]] std::string bash_completion(const ProgramDoc& doc);
[[nodiscard]] std::string zsh_completion(const ProgramDoc& doc);
[[nodiscard]] std::string fish_completion(const ProgramDoc& doc);

struct ShellRow {
    std::string_view name;
    std::string_view file_name;  // the name that the shell expects
    std::string (*render)(const ProgramDoc&);
};
inline constexpr std::array<ShellRow, 3> kShells = {{
    {"bash", "mha2mla", bash_completion},
    {"zsh", "_mha2mla", zsh_completion},
    {"fish", "mha2mla.fish", fish_completion},
}};

/// The page of a command with its generated part (usage, options, examples) updated; the text above and below the marks
/// is kept.
/// @param page the current page; empty for a new one. @param more Markdown that ends the generated part.
[[nodiscard]] std::string updated_page(const std::string& page, const CommandDoc& command,
                                       const std::string& more = {});

}  // namespace mha2mla::tool
