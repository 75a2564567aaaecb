#pragma once
/// Products of few rows with many, as a decoding step has them: BLAS would first rearrange the many rows in memory,
/// which costs as much as the product. Also the unpacking of what a KV cache stores. Compiled for more than one
/// instruction set, as elementwise.hpp.

#include <cstddef>
#include <cstdint>

#include "gemm.hpp"

namespace mha2mla {

/// c[m, n] = a[m, k] * b[n, k]ᵀ, or c += with `add`.
void narrow_abt(std::int64_t m, std::int64_t n, std::int64_t k, MatrixIn a, MatrixIn b, bool add, MatrixOut c);
/// The same, where b is BF16 of any alignment, row after row.
void narrow_abt_bf16(std::int64_t m, std::int64_t n, std::int64_t k, MatrixIn a, const std::byte* b, MatrixOut c);
/// c[m, k] += a[m, n] * b[n, k]
void narrow_ab(std::int64_t m, std::int64_t k, std::int64_t n, MatrixIn a, MatrixIn b, MatrixOut c);

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
