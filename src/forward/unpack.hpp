#pragma once
/// How a KV cache stores its numbers, and their unpacking. Compiled for more than one instruction set, as
/// elementwise.hpp.

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>

namespace mha2mla {

/// The bits of a BF16, to nearest even.
[[nodiscard]] inline std::uint16_t to_bf16(float value) {
    const auto bits = std::bit_cast<std::uint32_t>(value);
    if (std::isnan(value)) return 0x7FC0;
    return static_cast<std::uint16_t>((bits + 0x7FFFU + (bits >> 16U & 1U)) >> 16U);
}
/// The inverse of encoding `count` numbers in 16 bits. `from` may have any alignment.
void decode_bf16(const std::byte* from, std::int64_t count, float* to);
void decode_f16(const std::byte* from, std::int64_t count, float* to);

/// Bytes of `count` codes of 8, 4 or 2 bits.
[[nodiscard]] constexpr std::int64_t code_bytes(std::int64_t count, int bits) {
    const std::int64_t in_a_byte = 8 / bits;
    return (count + in_a_byte - 1) / in_a_byte;
}
/// Packs codes: with b bytes, byte i holds the codes i, b+i, 2b+i, ..., the first in its lowest bits, so that whole
/// vectors of bytes unpack without a shuffle.
void pack_codes(const std::uint8_t* codes, std::int64_t count, int bits, std::byte* to);
/// to[i] = code[i] * step + offset
void decode_codes(const std::byte* from, std::int64_t count, int bits, float step, float offset, float* to);

}  // namespace mha2mla
