// q8_0, q5_0, q4_0: a 16-bit scale, then integers around 0. q5_1, q4_1: a scale and a minimum, then integers from 0.
// The lower halves of 4 bits are elements 0-15, the upper ones 16-31; a fifth bit of each stands in a 32-bit word
// before.
#include <algorithm>
#include <array>
#include <cmath>

#include "block_formats.hpp"

namespace mha2mla {
namespace {

constexpr std::size_t kElements = 32;

template <typename Block>
void for_each_block(std::size_t elements, const Block& block) {
    for (std::size_t index = 0; index < elements / kElements; ++index) block(index);
}

float inverse(float scale) { return scale == 0 ? 0.0F : 1 / scale; }

/// Integers 0 to 2·zero − 1 of a block, where `zero` stands for 0 and 0 for the element of largest magnitude.
/// @return the scale.
float round_to_levels(Floats values, float zero, std::array<unsigned, kElements>& levels) {
    const float largest =
        *std::max_element(values.begin(), values.end(), [](float a, float b) { return std::abs(a) < std::abs(b); });
    const float scale = largest / -zero;
    const float factor = inverse(scale);
    const auto top = static_cast<unsigned>(2 * zero) - 1;
    for (std::size_t i = 0; i < kElements; ++i) {
        levels.at(i) = std::min(static_cast<unsigned>(values[i] * factor + (zero + 0.5F)), top);
    }
    return scale;
}

void put_nibbles(const std::array<unsigned, kElements>& levels, std::span<std::byte> to) {
    for (std::size_t i = 0; i < kElements / 2; ++i) {
        to[i] = static_cast<std::byte>((levels.at(i) & 0xFU) | (levels.at(i + kElements / 2) & 0xFU) << 4U);
    }
}

/// Element i of the 4-bit integers at `from`.
unsigned nibble(Bytes from, std::size_t i) {
    return i < kElements / 2 ? byte_at(from, i) & 0xFU : byte_at(from, i - kElements / 2) >> 4U;
}

/// The five bits of element i, its highest from the word at `high`.
unsigned five_bits(Bytes high, Bytes low, std::size_t i) {
    return nibble(low, i) | (byte_at(high, i / 8) >> (i % 8) & 1U) << 4U;
}

/// value(i) of every block whose first number is its scale.
template <typename Value>
void dequantize_by_scale(Bytes from, std::span<float> values, std::size_t bytes, const Value& value) {
    for_each_block(values.size(), [&](std::size_t index) {
        const Bytes block = from.subspan(index * bytes, bytes);
        const float scale = half_at(block.data());
        for (std::size_t i = 0; i < kElements; ++i) values[index * kElements + i] = value(block, scale, i);
    });
}

}  // namespace

void quantize_q8_0(Floats values, std::span<std::byte> to) {
    constexpr std::size_t kBytes = 34;
    for_each_block(values.size(), [&](std::size_t index) {
        const Floats block = values.subspan(index * kElements, kElements);
        float largest = 0;
        for (const float value : block) largest = std::max(largest, std::abs(value));
        const float scale = largest / 127;
        const float factor = inverse(scale);
        (void)put_half(scale, &to[index * kBytes]);
        for (std::size_t i = 0; i < kElements; ++i) {
            to[index * kBytes + 2 + i] = static_cast<std::byte>(static_cast<int>(std::round(block[i] * factor)));
        }
    });
}

void quantize_q5_0(Floats values, std::span<std::byte> to) {
    constexpr std::size_t kBytes = 22;
    for_each_block(values.size(), [&](std::size_t index) {
        std::array<unsigned, kElements> levels{};
        const std::span<std::byte> block = to.subspan(index * kBytes, kBytes);
        (void)put_half(round_to_levels(values.subspan(index * kElements, kElements), 16, levels), block.data());
        for (std::size_t part = 0; part < 4; ++part) {
            unsigned bits = 0;
            for (std::size_t i = 0; i < 8; ++i) bits |= levels.at(8 * part + i) >> 4U << i;
            block[2 + part] = static_cast<std::byte>(bits);
        }
        put_nibbles(levels, block.subspan(6));
    });
}

void quantize_q4_0(Floats values, std::span<std::byte> to) {
    constexpr std::size_t kBytes = 18;
    for_each_block(values.size(), [&](std::size_t index) {
        std::array<unsigned, kElements> levels{};
        const std::span<std::byte> block = to.subspan(index * kBytes, kBytes);
        (void)put_half(round_to_levels(values.subspan(index * kElements, kElements), 8, levels), block.data());
        put_nibbles(levels, block.subspan(2));
    });
}

void dequantize_q8_0(Bytes from, std::span<float> values) {
    dequantize_by_scale(from, values, 34, [](Bytes block, float scale, std::size_t i) {
        return scale * static_cast<float>(static_cast<std::int8_t>(byte_at(block, 2 + i)));
    });
}

void dequantize_q5_0(Bytes from, std::span<float> values) {
    dequantize_by_scale(from, values, 22, [](Bytes block, float scale, std::size_t i) {
        return scale * (static_cast<float>(five_bits(block.subspan(2, 4), block.subspan(6), i)) - 16);
    });
}

void dequantize_q5_1(Bytes from, std::span<float> values) {
    dequantize_by_scale(from, values, 24, [](Bytes block, float scale, std::size_t i) {
        return scale * static_cast<float>(five_bits(block.subspan(4, 4), block.subspan(8), i)) + half_at(&block[2]);
    });
}

void dequantize_q4_0(Bytes from, std::span<float> values) {
    dequantize_by_scale(from, values, 18, [](Bytes block, float scale, std::size_t i) {
        return scale * (static_cast<float>(nibble(block.subspan(2), i)) - 8);
    });
}

void dequantize_q4_1(Bytes from, std::span<float> values) {
    dequantize_by_scale(from, values, 20, [](Bytes block, float scale, std::size_t i) {
        return scale * static_cast<float>(nibble(block.subspan(4), i)) + half_at(&block[2]);
    });
}

}  // namespace mha2mla
