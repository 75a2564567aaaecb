// q4_k, q5_k: 8 parts of 32 with 6-bit scales and minima, which two 16-bit floats scale. q6_k: 16 parts of 16 with
// 8-bit scales, which one 16-bit float scales.
#include "block_formats.hpp"

namespace mha2mla {
namespace {

/// @param fifth whether each element has a fifth bit: bit `part` of byte i of the 32 bytes behind the scales.
void dequantize_parts(Bytes from, std::span<float> values, std::size_t bytes, bool fifth) {
    for (std::size_t index = 0; index < values.size() / kElementsOfParts; ++index) {
        const Bytes block = from.subspan(index * bytes, bytes);
        const Bytes scales = block.subspan(4, kPackedScales), high = block.subspan(4 + kPackedScales);
        const Bytes low = fifth ? high.subspan(kPartSize) : high;
        for (std::size_t part = 0; part < kParts; ++part) {
            const auto [scale, minimum] = unpack_scale(scales, part);
            const float factor = half_at(block.data()) * static_cast<float>(scale);
            const float offset = half_at(&block[2]) * static_cast<float>(minimum);
            for (std::size_t i = 0; i < kPartSize; ++i) {
                // Two parts share 32 bytes: the even one has their lower halves.
                const unsigned both = byte_at(low, part / 2 * kPartSize + i);
                unsigned level = part % 2 == 0 ? both & 0xFU : both >> 4U;
                if (fifth) level |= (byte_at(high, i) >> part & 1U) << 4U;
                values[index * kElementsOfParts + part * kPartSize + i] = factor * static_cast<float>(level) - offset;
            }
        }
    }
}

}  // namespace

PartScale unpack_scale(Bytes packed, std::size_t part) {
    const std::size_t column = part % 4;
    const unsigned scale = byte_at(packed, column), minimum = byte_at(packed, 4 + column);
    if (part < 4) return {scale & 63U, minimum & 63U};
    const unsigned both = byte_at(packed, 8 + column);
    return {(both & 0xFU) | (scale >> 6U) << 4U, both >> 4U | (minimum >> 6U) << 4U};
}

void pack_scale(PartScale scale, std::size_t part, std::span<std::byte> packed) {
    const std::size_t column = part % 4;
    if (part < 4) {
        packed[column] |= static_cast<std::byte>(scale.scale);
        packed[4 + column] |= static_cast<std::byte>(scale.minimum);
        return;
    }
    packed[8 + column] = static_cast<std::byte>((scale.scale & 0xFU) | (scale.minimum & 0xFU) << 4U);
    packed[column] |= static_cast<std::byte>(scale.scale >> 4U << 6U);
    packed[4 + column] |= static_cast<std::byte>(scale.minimum >> 4U << 6U);
}

void dequantize_q4_k(Bytes from, std::span<float> values) { dequantize_parts(from, values, 144, false); }
void dequantize_q5_k(Bytes from, std::span<float> values) { dequantize_parts(from, values, 176, true); }

void dequantize_q6_k(Bytes from, std::span<float> values) {
    constexpr std::size_t kBytes = 210, kHigh = 128, kScales = 192, kScale = 208;
    for (std::size_t index = 0; index < values.size() / kElementsOfParts; ++index) {
        const Bytes block = from.subspan(index * kBytes, kBytes);
        for (std::size_t i = 0; i < kElementsOfParts; ++i) {
            // In each half of 128 elements, 64 bytes hold four lower bits of 2 x 64, and 32 bytes two upper bits of 4
            // x 32.
            const std::size_t half = i / 128, at = i % 128;
            const unsigned low = byte_at(block, half * 64 + at % 64) >> (at / 64 * 4) & 0xFU;
            const unsigned high = byte_at(block, kHigh + half * 32 + at % 32) >> (at / 32 * 2) & 3U;
            const auto scale = static_cast<std::int8_t>(byte_at(block, kScales + i / 16));
            const float factor = half_at(&block[kScale]) * static_cast<float>(scale);
            values[index * kElementsOfParts + i] = factor * (static_cast<float>(low | high << 4U) - 32);
        }
    }
}

}  // namespace mha2mla
