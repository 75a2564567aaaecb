#pragma once
/// Numbers of the GGUF format that its reader and its writer share.

#include <array>
#include <cstdint>
#include <string_view>

namespace mha2mla::gguf {

inline constexpr std::string_view kMagic = "GGUF";
inline constexpr std::uint32_t kVersion = 3;
inline constexpr std::uint64_t kAlignment = 32;  // unless general.alignment says otherwise

/// Types of metadata values.
enum Type : std::uint32_t { u8, i8, u16, i16, u32, i32, f32, boolean, string, array, u64, i64, f64 };
/// Bytes of a value of each type; 0: it says so itself.
inline constexpr std::array<std::uint64_t, 13> kSizes = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

/// `offset` rounded up to a multiple of `alignment`, which must not overflow.
[[nodiscard]] constexpr std::uint64_t aligned(std::uint64_t offset, std::uint64_t alignment) {
    return (offset + alignment - 1) / alignment * alignment;
}

}  // namespace mha2mla::gguf
