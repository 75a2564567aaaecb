#pragma once
/// Kinds of characters, as the Rust library's steps see them. Its tables of punctuation end with Unicode 8; for the
/// others, a character that a later version of Unicode added may differ.

namespace mha2mla::characters {

/// ASCII characters that are neither letters nor digits, and the general category P.
[[nodiscard]] bool is_punctuation(char32_t c);
/// The general category M.
[[nodiscard]] bool is_mark(char32_t c);
/// The general category Mn.
[[nodiscard]] bool is_nonspacing_mark(char32_t c);
/// The general categories Cc, Cf and Co.
[[nodiscard]] bool is_control(char32_t c);
/// Ideographs, without kana and Hangul.
[[nodiscard]] bool is_chinese(char32_t c);

}  // namespace mha2mla::characters
