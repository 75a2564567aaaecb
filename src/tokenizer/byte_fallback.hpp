#pragma once
/// The tokens <0x00> to <0xFF>, which encode the bytes of characters that are not in the vocabulary.

#include <optional>
#include <string>
#include <string_view>

namespace mha2mla::byte_fallback {

/// The token of a byte, for example "<0x0A>" for 10.
[[nodiscard]] inline std::string token(unsigned char byte) {
    constexpr std::string_view kDigits = "0123456789ABCDEF";
    return {'<', '0', 'x', kDigits[byte >> 4], kDigits[byte & 15], '>'};
}

/// The byte that a token encodes, if it is a byte token. Its digits may be in upper or lower case.
[[nodiscard]] inline std::optional<unsigned char> parse(std::string_view token) {
    if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return std::nullopt;
    unsigned value = 0;
    for (const char c : token.substr(3, 2)) {
        if (c >= '0' && c <= '9') {
            value = value * 16 + static_cast<unsigned>(c - '0');
        } else if ((c >= 'A' && c <= 'F') || (c >= 'a' && c <= 'f')) {
            value = value * 16 + static_cast<unsigned>((c | 0x20) - 'a') + 10;
        } else {
            return std::nullopt;
        }
    }
    return static_cast<unsigned char>(value);
}

}  // namespace mha2mla::byte_fallback
