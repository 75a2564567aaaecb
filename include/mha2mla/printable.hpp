#pragma once
/// Text from files and arguments, made safe for a terminal, a log file and a page.

#include <string>
#include <string_view>

namespace mha2mla {

/// One line of the text, in which '?' stands for what changes how others are shown or read: each byte that is not
/// UTF-8, and each control character, line separator or mark that turns the direction of writing.
[[nodiscard]] std::string printable(std::string_view text);

/// The text; of one longer than `most` bytes its beginning and its end.
[[nodiscard]] std::string shortened(std::string_view text, std::size_t most);

}  // namespace mha2mla
