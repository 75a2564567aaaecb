#pragma once
/// A safetensors file from its parts, written out here so that no test trusts the library's own writer.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace mha2mla::test {

/// Little-endian, as all lengths and offsets of the file formats in these tests.
inline std::string little_endian(std::uint64_t value, unsigned bytes) {
    std::string text;
    for (unsigned i = 0; i < bytes; ++i) text += static_cast<char>(value >> (8 * i) & 0xffU);
    return text;
}

/// 8-byte header length, header, data. Nothing is checked: tests pass what is wrong on purpose.
inline std::string safetensors_bytes(std::string_view header_json, std::string_view data = {}) {
    return little_endian(header_json.size(), 8) + std::string(header_json) + std::string(data);
}

inline std::span<const std::byte> bytes_of(std::string_view text) { return std::as_bytes(std::span(text)); }

}  // namespace mha2mla::test
