#pragma once
#include <cstdint>

#include "mha2mla/kv_cache.hpp"

namespace mha2mla {

/// Quantises a group of numbers: x[i] ≈ code[i] * step + offset, with step and offset as F16.
struct GroupScale {
    std::uint16_t step, offset;
};

/// @param codes [count], each below 2^bits.
/// @throws Error{numeric} if step or offset do not fit F16.
[[nodiscard]] GroupScale quantize_group(const float* x, std::int64_t count, int bits, Quantizer quantizer,
                                        std::uint8_t* codes);

/// The bits of a number as F16. @throws Error{numeric} if it does not fit.
[[nodiscard]] std::uint16_t to_f16(float value);

}  // namespace mha2mla
