#pragma once
/// How GGUF files store the numbers of a tensor: as floats, or in blocks of small integers that share scales.

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "mha2mla/table.hpp"

namespace mha2mla {

/// The formats that this library reads; those with a `quantize` it writes too.
enum class BlockType : std::uint8_t { f32, f16, bf16, q8_0, q5_0, q4_0, q4_k, q4_1, q5_1, q5_k, q6_k };

/// A block is `elements` neighbours of a row; a row is a whole number of blocks. Values are those of llama.cpp and of
/// the gguf package, bit for bit.
struct BlockFormat {
    BlockType type;
    std::string_view name;    // as llama.cpp writes it, in small letters: "q4_k"
    std::uint32_t id;         // of the type in a file
    std::int64_t elements;    // of a block
    std::int64_t bytes;       // of a block
    std::uint32_t file_type;  // general.file_type of a file whose matrices are of this type
    /// Whole blocks of finite values to bytes; null: only read. A value beyond the range of f16 becomes infinite.
    void (*quantize)(std::span<const float> values, std::span<std::byte> to);
    void (*dequantize)(std::span<const std::byte> from, std::span<float> values);

    /// Bytes of `count` elements, a whole number of blocks.
    [[nodiscard]] constexpr std::int64_t bytes_of(std::int64_t count) const { return count / elements * bytes; }
};

[[nodiscard]] const BlockFormat& format_of(BlockType type);
/// The format with this number in a file, if it is known.
[[nodiscard]] const BlockFormat* find_block_format(std::uint32_t id);

}  // namespace mha2mla
