#pragma once
/// Decoding and encoding of UTF-8, and the character properties that tokenizers need.

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

/// Decodes the character at `text[at]` strictly: no overlong forms, no surrogates, nothing above U+10FFFF.
[[nodiscard]] CodePoint decode(std::string_view text, std::size_t at);

/// The offset of the first byte that is not valid UTF-8, if there is one.
[[nodiscard]] std::optional<std::size_t> find_invalid(std::string_view text);

/// The end of a part of `text` (valid UTF-8) that begins at `from`: after this many bytes and the rest of a character,
/// or the end of the text.
[[nodiscard]] std::size_t end_of_part(std::string_view text, std::size_t from, std::size_t bytes);

/// Whether `bytes` is an incomplete beginning of a character.
[[nodiscard]] bool is_unfinished(std::string_view bytes);

/// `value` must be a code point and not a surrogate.
void append(std::string& out, char32_t value);

/// `bytes` with each maximal ill-formed part replaced by one U+FFFD, as Unicode recommends. An incomplete character at
/// the end is kept unchanged.
[[nodiscard]] std::string replace_invalid(std::string_view bytes);

/// Whether the character has the property White_Space.
[[nodiscard]] bool is_white_space(char32_t c);

/// Whether the character is in \w of Unicode's recommendation for regular expressions (UTS 18): Alphabetic, marks,
/// decimal digits, connector punctuation, join controls.
[[nodiscard]] bool is_word(char32_t c);

/// The number of bytes of white space at the start of `text`, which must be valid UTF-8, as for the next function.
[[nodiscard]] std::size_t leading_white_space(std::string_view text);

/// The offset of the white space at the end of `text`.
[[nodiscard]] std::size_t trailing_white_space(std::string_view text);

[[nodiscard]] bool starts_with_word(std::string_view text);
[[nodiscard]] bool ends_with_word(std::string_view text);

}  // namespace mha2mla::utf8
