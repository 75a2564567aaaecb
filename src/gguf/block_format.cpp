#include "mha2mla/block_format.hpp"

#include <bit>

#include "block_formats.hpp"

namespace mha2mla {
namespace {

void put_f32(Floats values, std::span<std::byte> to) { std::memcpy(to.data(), values.data(), values.size_bytes()); }
void get_f32(Bytes from, std::span<float> values) { std::memcpy(values.data(), from.data(), from.size()); }

void put_f16(Floats values, std::span<std::byte> to) {
    for (std::size_t i = 0; i < values.size(); ++i) (void)put_half(values[i], &to[2 * i]);
}
void get_f16(Bytes from, std::span<float> values) {
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = half_at(&from[2 * i]);
}

/// To nearest even; a NaN becomes a quiet one.
std::uint16_t bf16_bits(float value) {
    const auto bits = std::bit_cast<std::uint32_t>(value);
    if ((bits & 0x7FFFFFFFU) > 0x7F800000U) return static_cast<std::uint16_t>((bits >> 16U) | 0x40U);
    return static_cast<std::uint16_t>((bits + (0x7FFFU + ((bits >> 16U) & 1U))) >> 16U);
}
void put_bf16(Floats values, std::span<std::byte> to) {
    for (std::size_t i = 0; i < values.size(); ++i) {
        const std::uint16_t bits = bf16_bits(values[i]);
        std::memcpy(&to[2 * i], &bits, sizeof(bits));
    }
}
void get_bf16(Bytes from, std::span<float> values) {
    for (std::size_t i = 0; i < values.size(); ++i) {
        std::uint16_t bits = 0;
        std::memcpy(&bits, &from[2 * i], sizeof(bits));
        values[i] = std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16U);
    }
}

constexpr std::array<BlockFormat, 11> kFormats = {{
    // type           name    id  elements bytes file type
    {BlockType::f32, "f32", 0, 1, 4, 0, put_f32, get_f32},
    {BlockType::f16, "f16", 1, 1, 2, 1, put_f16, get_f16},
    {BlockType::bf16, "bf16", 30, 1, 2, 32, put_bf16, get_bf16},
    {BlockType::q8_0, "q8_0", 8, 32, 34, 7, quantize_q8_0, dequantize_q8_0},
    {BlockType::q5_0, "q5_0", 6, 32, 22, 8, quantize_q5_0, dequantize_q5_0},
    {BlockType::q4_0, "q4_0", 2, 32, 18, 2, quantize_q4_0, dequantize_q4_0},
    {BlockType::q4_k, "q4_k", 12, 256, 144, 14, quantize_q4_k, dequantize_q4_k},
    {BlockType::q4_1, "q4_1", 3, 32, 20, 3, nullptr, dequantize_q4_1},
    {BlockType::q5_1, "q5_1", 7, 32, 24, 9, nullptr, dequantize_q5_1},
    {BlockType::q5_k, "q5_k", 13, 256, 176, 16, nullptr, dequantize_q5_k},
    {BlockType::q6_k, "q6_k", 14, 256, 210, 18, nullptr, dequantize_q6_k},
}};
static_assert(in_order(kFormats, &BlockFormat::type));

}  // namespace

const BlockFormat& format_of(BlockType type) { return kFormats.at(static_cast<std::size_t>(type)); }

const BlockFormat* find_block_format(std::uint32_t id) {
    for (const BlockFormat& format : kFormats) {
        if (format.id == id) return &format;
    }
    return nullptr;
}

}  // namespace mha2mla
