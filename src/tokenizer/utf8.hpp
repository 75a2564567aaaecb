#pragma once
/// UTF-8 in and out, and the three questions about characters that tokenizers ask.

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace mha2mla::utf8 {

/// One decoded character. `length` 0: the bytes at that place are not UTF-8.
struct CodePoint {
    char32_t value = 0;
    std::size_t length = 0;
};

/// The character at `text[at]`, strictly: no overlong forms, no surrogates, nothing above U+10FFFF.
[[nodiscard]] CodePoint decode(std::string_view text, std::size_t at);

/// Offset of the first byte that does not belong to valid UTF-8, or nothing.
[[nodiscard]] std::optional<std::size_t> find_invalid(std::string_view text);

/// Whether `bytes` is the beginning of some character, and not the whole of it.
[[nodiscard]] bool is_unfinished(std::string_view bytes);

/// `value` must be a code point and not a surrogate.
void append(std::string& out, char32_t value);

/// `bytes` with each maximal ill-formed part as one U+FFFD, as Unicode recommends. An unfinished character at the very
/// end is kept as it is.
[[nodiscard]] std::string replace_invalid(std::string_view bytes);

/// The property White_Space.
[[nodiscard]] bool is_white_space(char32_t c);

/// What Unicode's recommendation for regular expressions (UTS 18) calls \w: Alphabetic, marks, decimal digits,
/// connector punctuation, join controls.
[[nodiscard]] bool is_word(char32_t c);

/// Length of the white space that `text` begins with, in bytes. `text` must be valid UTF-8; so below.
[[nodiscard]] std::size_t leading_white_space(std::string_view text);

/// Offset where the white space that `text` ends with begins.
[[nodiscard]] std::size_t trailing_white_space(std::string_view text);

[[nodiscard]] bool starts_with_word(std::string_view text);
[[nodiscard]] bool ends_with_word(std::string_view text);

}  // namespace mha2mla::utf8
