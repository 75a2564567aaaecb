#pragma once
/// A safetensors file from its parts, written without the library's writer, so that tests do not depend on it.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace mha2mla::test {

/// The little-endian bytes of a number, as in all file formats of these tests.
inline std::string little_endian(std::uint64_t value, unsigned bytes) {
    std::string text;
    for (unsigned i = 0; i < bytes; ++i) text += static_cast<char>(value >> (8 * i) & 0xffU);
    return text;
}

/// 8-byte header length, header, data. Nothing is checked, because tests also make invalid files.
inline std::string safetensors_bytes(std::string_view header_json, std::string_view data = {}) {
    return little_endian(header_json.size(), 8) + std::string(header_json) + std::string(data);
}

inline std::span<const std::byte> bytes_of(std::string_view text) { return std::as_bytes(std::span(text)); }

}  // namespace mha2mla::test
