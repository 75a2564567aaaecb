#pragma once
/// Products of few rows with many, as a decoding step has them: BLAS would first rearrange the many rows in memory,
/// which costs as much as the product. Compiled for more than one instruction set, as elementwise.hpp.

#include <cstddef>
#include <cstdint>

#include "gemm.hpp"

namespace mha2mla {

/// c[m, n] = a[m, k] * b[n, k]ᵀ, or c += with `add`.
void narrow_abt(std::int64_t m, std::int64_t n, std::int64_t k, MatrixIn a, MatrixIn b, bool add, MatrixOut c);
/// c = a * bᵀ with b as a checkpoint holds it in memory, row after row: float32, or BF16 or F16 of any alignment.
void narrow_abt_f32(std::int64_t m, std::int64_t n, std::int64_t k, MatrixIn a, const std::byte* b, MatrixOut c);
void narrow_abt_bf16(std::int64_t m, std::int64_t n, std::int64_t k, MatrixIn a, const std::byte* b, MatrixOut c);
void narrow_abt_f16(std::int64_t m, std::int64_t n, std::int64_t k, MatrixIn a, const std::byte* b, MatrixOut c);
/// c[m, k] += a[m, n] * b[n, k]
void narrow_ab(std::int64_t m, std::int64_t k, std::int64_t n, MatrixIn a, MatrixIn b, MatrixOut c);
/// c[m, k] += a[n, m]ᵀ * b[n, k]
void narrow_atb(std::int64_t m, std::int64_t k, std::int64_t n, MatrixIn a, MatrixIn b, MatrixOut c);

}  // namespace mha2mla
