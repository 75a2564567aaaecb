#pragma once
/// Texts as LongBench's metrics see them: sequences of code points, with the methods of Python's str. Characters have
/// the properties of Unicode 14 (Python 3.11), whatever version the installed tables are of.

#include <string>
#include <string_view>
#include <vector>

namespace mha2mla::python {

/// Decodes UTF-8. Bytes that are not UTF-8 become U+FFFD.
[[nodiscard]] std::u32string decode(std::string_view utf8);

/// str.isspace() of a character: what str.split() splits at.
[[nodiscard]] bool is_space(char32_t c);
/// \w of a regular expression: letters, numbers, the underscore; no marks.
[[nodiscard]] bool is_word(char32_t c);
/// \d of a regular expression: decimal digits of any script.
[[nodiscard]] bool is_digit(char32_t c);

/// str.lower(): U+0130 becomes two characters, and a sigma that ends a word becomes a final one.
[[nodiscard]] std::u32string lower(std::u32string_view text);
/// str.split()
[[nodiscard]] std::vector<std::u32string> split(std::u32string_view text);
/// str.split(separator)
[[nodiscard]] std::vector<std::u32string> split_at(std::u32string_view text, char32_t separator);
/// re.findall(r"\d+", text)
[[nodiscard]] std::vector<std::u32string> numbers_in(std::u32string_view text);

}  // namespace mha2mla::python
