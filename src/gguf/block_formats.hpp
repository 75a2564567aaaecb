#pragma once
/// Conversions of single formats, for the table in block_format.cpp. All take whole blocks.

#include <Eigen/Core>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace mha2mla {

using Floats = std::span<const float>;
using Bytes = std::span<const std::byte>;

void quantize_q8_0(Floats values, std::span<std::byte> to);
void quantize_q5_0(Floats values, std::span<std::byte> to);
void quantize_q4_0(Floats values, std::span<std::byte> to);
void quantize_q4_k(Floats values, std::span<std::byte> to);

void dequantize_q8_0(Bytes from, std::span<float> values);
void dequantize_q5_0(Bytes from, std::span<float> values);
void dequantize_q5_1(Bytes from, std::span<float> values);
void dequantize_q4_0(Bytes from, std::span<float> values);
void dequantize_q4_1(Bytes from, std::span<float> values);
void dequantize_q4_k(Bytes from, std::span<float> values);
void dequantize_q5_k(Bytes from, std::span<float> values);
void dequantize_q6_k(Bytes from, std::span<float> values);

/// The 16-bit float at `from`.
inline float half_at(const std::byte* from) {
    std::uint16_t bits = 0;
    std::memcpy(&bits, from, sizeof(bits));
    return static_cast<float>(Eigen::numext::bit_cast<Eigen::half>(bits));
}
/// Rounds to nearest even. @return what was stored.
inline float put_half(float value, std::byte* to) {
    const auto bits = Eigen::numext::bit_cast<std::uint16_t>(Eigen::half(value));
    std::memcpy(to, &bits, sizeof(bits));
    return half_at(to);
}
inline unsigned byte_at(Bytes from, std::size_t index) { return std::to_integer<unsigned>(from[index]); }

/// A 6-bit scale and minimum of one of the 8 parts of a block of q4_k or q5_k.
struct PartScale {
    unsigned scale = 0, minimum = 0;
};
inline constexpr std::size_t kParts = 8, kPartSize = 32, kPackedScales = 12, kElementsOfParts = kParts * kPartSize;
/// Bytes 0-3 hold the scales of parts 0-3 and bytes 4-7 their minima in the lower 6 bits; bytes 8-11 the lower 4 bits
/// of the scales and, above, of the minima of parts 4-7, whose upper 2 bits lie above those of parts 0-3.
[[nodiscard]] PartScale unpack_scale(Bytes packed, std::size_t part);
void pack_scale(PartScale scale, std::size_t part, std::span<std::byte> packed);

}  // namespace mha2mla
