// What the vector loops share, for each instruction set (Highway). A file of loops is compiled once per set: it names
// itself as HWY_TARGET_INCLUDE, includes targets.hpp, <hwy/foreach_target.h> and then this file.

#if defined(MHA2MLA_VECTORS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef MHA2MLA_VECTORS_INL_H_
#undef MHA2MLA_VECTORS_INL_H_
#else
#define MHA2MLA_VECTORS_INL_H_
#endif

#include <hwy/highway.h>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "unroll.hpp"

HWY_BEFORE_NAMESPACE();
namespace mha2mla {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

HWY_INLINE float bf16_value(std::uint16_t half) {
    return std::bit_cast<float>(static_cast<std::uint32_t>(half) << 16U);
}
/// Exponent and mantissa moved to where a float32 has them; the product corrects the exponent's bias, and subnormal
/// numbers with it.
HWY_INLINE float f16_value(std::uint16_t half) {
    const std::uint32_t magnitude = (half & 0x7FFFU) << 13U;
    const std::uint32_t sign = (half & 0x8000U) << 16U;
    if (magnitude >= 0x0F800000U) return std::bit_cast<float>(magnitude | sign | 0x7F800000U);  // infinity, NaN
    return std::bit_cast<float>(std::bit_cast<std::uint32_t>(std::bit_cast<float>(magnitude) * 0x1p112F) | sign);
}
HWY_INLINE std::uint16_t load_half(const std::byte* from) {
    std::uint16_t half = 0;
    std::memcpy(&half, from, 2);
    return half;
}

template <class D>
HWY_INLINE hn::Vec<D> load(D d, const float* from) {
    return hn::LoadU(d, from);
}
/// BF16 of any alignment.
template <class D>
HWY_INLINE hn::Vec<D> load(D d, const std::uint16_t* from) {
    const hn::RebindToUnsigned<D> words;
    const hn::Rebind<std::uint16_t, D> halves;
    return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(words, hn::LoadU(halves, from))));
}
/// F16 of any alignment.
template <class D>
HWY_INLINE hn::Vec<D> load(D d, const hwy::float16_t* from) {
    const hn::Rebind<std::uint16_t, D> halves;
    const hn::Rebind<hwy::float16_t, D> numbers;
    return hn::PromoteTo(d, hn::BitCast(numbers, hn::LoadU(halves, reinterpret_cast<const std::uint16_t*>(from))));
}
HWY_INLINE float value(const float* from) { return *from; }
HWY_INLINE float value(const hwy::float16_t* from) {
    return f16_value(load_half(reinterpret_cast<const std::byte*>(from)));
}
HWY_INLINE float value(const std::uint16_t* from) {
    return bf16_value(load_half(reinterpret_cast<const std::byte*>(from)));
}

/// Cody-Waite reduction to |r| <= ln(2)/2, the polynomial of Cephes' expf, and 2^n through its exponent bits.
template <class D>
HWY_INLINE hn::Vec<D> exp(D d, hn::Vec<D> x) {
    const hn::RebindToSigned<D> ints;
    const auto constant = [d](float number) HWY_ATTR { return hn::Set(d, number); };
    const auto rounder = constant(12582912.0F);  // 1.5 * 2^23: adding it rounds, with the whole number in the low bits
    const auto low = constant(-87.3F);
    const auto high = constant(88.3F);
    const auto given = x;
    const auto vanishes = hn::Lt(x, low);
    x = hn::Min(high, hn::Max(low, x));
    const auto rounded = hn::MulAdd(x, constant(1.44269504088896341F), rounder);
    const auto n = hn::Sub(rounded, rounder);
    const auto r = hn::MulAdd(n, constant(2.12194440e-4F), hn::NegMulAdd(n, constant(0.693359375F), x));
    auto p = hn::MulAdd(r, constant(1.9875691500e-4F), constant(1.3981999507e-3F));
    p = hn::MulAdd(p, r, constant(8.3334519073e-3F));
    p = hn::MulAdd(p, r, constant(4.1665795894e-2F));
    p = hn::MulAdd(p, r, constant(1.6666665459e-1F));
    p = hn::MulAdd(p, r, constant(5.0000001201e-1F));
    p = hn::Add(hn::MulAdd(p, hn::Mul(r, r), r), constant(1.0F));
    const auto power = hn::ShiftLeft<23>(hn::Sub(hn::BitCast(ints, rounded), hn::Set(ints, 0x4B400000 - 127)));
    // NEON's minimum and maximum of NaN and a number are the number.
    return hn::IfThenElse(hn::IsNaN(given), given, hn::IfThenZeroElse(vanishes, hn::Mul(p, hn::BitCast(d, power))));
}

/// The sum of each of four vectors.
template <class D>
HWY_INLINE hn::Vec128<float> sum_of_four(D d, hn::Vec<D> a, hn::Vec<D> b, hn::Vec<D> c, hn::Vec<D> e) {
    const hn::Repartition<double, D> pairs;
    const auto ab = hn::BitCast(pairs, hn::Add(hn::InterleaveLower(d, a, b), hn::InterleaveUpper(d, a, b)));
    const auto ce = hn::BitCast(pairs, hn::Add(hn::InterleaveLower(d, c, e), hn::InterleaveUpper(d, c, e)));
    const auto all =
        hn::Add(hn::BitCast(d, hn::InterleaveLower(pairs, ab, ce)), hn::BitCast(d, hn::InterleaveUpper(pairs, ab, ce)));
    const hn::Half<D> half;
    if constexpr (hn::MaxLanes(d) == 4) {
        return all;
    } else if constexpr (hn::MaxLanes(d) == 8) {
        return hn::Add(hn::LowerHalf(half, all), hn::UpperHalf(half, all));
    } else {
        const hn::Half<decltype(half)> quarter;
        const auto two = hn::Add(hn::LowerHalf(half, all), hn::UpperHalf(half, all));
        return hn::Add(hn::LowerHalf(quarter, two), hn::UpperHalf(quarter, two));
    }
}

}  // namespace HWY_NAMESPACE
}  // namespace mha2mla
HWY_AFTER_NAMESPACE();

#endif
