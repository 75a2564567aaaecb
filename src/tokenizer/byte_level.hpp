#pragma once
/// GPT-2's byte alphabet: every byte is written as one printable character, so that a vocabulary is text.

#include <string>
#include <string_view>

namespace mha2mla::byte_level {

/// Appends the character of each byte of `bytes`.
void append_encoded(std::string& out, std::string_view bytes);

/// Appends the bytes that `token` encodes, or `token` itself if one of its characters is not in the alphabet, as in
/// added tokens with spaces. `token` must be valid UTF-8.
void append_decoded(std::string& out, std::string_view token);

}  // namespace mha2mla::byte_level
