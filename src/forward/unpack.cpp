#include "unpack.hpp"

#include <algorithm>

#include "../linalg/targets.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "forward/unpack.cpp"
#include <hwy/foreach_target.h>

#include "../linalg/vectors-inl.h"

HWY_BEFORE_NAMESPACE();
namespace mha2mla {
namespace HWY_NAMESPACE {
namespace {

using Floats = hn::CappedTag<float, 16>;
constexpr Floats kFloats;
using Vector = hn::Vec<Floats>;
constexpr std::int64_t kLanes = hn::MaxLanes(kFloats);
constexpr hn::RebindToUnsigned<Floats> kWords;
constexpr hn::Rebind<std::uint8_t, Floats> kBytes;

void bf16(const std::byte* from, std::int64_t count, float* to) {
    std::int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) {
        hn::StoreU(load(kFloats, reinterpret_cast<const std::uint16_t*>(from + 2 * i)), kFloats, to + i);
    }
    for (; i < count; ++i) to[i] = bf16_value(load_half(from + 2 * i));
}

/// Infinity and NaN do not occur in a cache.
void f16(const std::byte* from, std::int64_t count, float* to) {
    const auto* numbers = reinterpret_cast<const hwy::float16_t*>(from);
    std::int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) hn::StoreU(load(kFloats, numbers + i), kFloats, to + i);
    for (; i < count; ++i) to[i] = value(numbers + i);
}

template <int kBits, int kPart = 0>
HWY_INLINE void store_parts(hn::Vec<decltype(kWords)> packed, std::int64_t bytes, Vector step, Vector offset,
                            float* to) {
    const hn::RebindToSigned<Floats> ints;
    const auto code = hn::And(hn::ShiftRight<kPart * kBits>(packed), hn::Set(kWords, (1U << kBits) - 1U));
    hn::StoreU(hn::MulAdd(hn::ConvertTo(kFloats, hn::BitCast(ints, code)), step, offset), kFloats, to);
    if constexpr (kPart + 1 < 8 / kBits) {
        store_parts<kBits, kPart + 1>(packed, bytes, step, offset, to + bytes);
    }
}

template <int kBits>
HWY_INLINE void codes_of(const std::byte* from, std::int64_t count, float step, float offset, float* to) {
    constexpr unsigned kMask = (1U << kBits) - 1U;
    const Vector steps = hn::Set(kFloats, step);
    const Vector offsets = hn::Set(kFloats, offset);
    const std::int64_t bytes = code_bytes(count, kBits);
    std::int64_t i = 0;
    for (; i + kLanes <= bytes && (8 / kBits - 1) * bytes + i + kLanes <= count; i += kLanes) {
        const auto packed = hn::LoadU(kBytes, reinterpret_cast<const std::uint8_t*>(from + i));
        store_parts<kBits>(hn::PromoteTo(kWords, packed), bytes, steps, offsets, to + i);
    }
    for (; i < bytes; ++i) {
        for (int part = 0; part < 8 / kBits && part * bytes + i < count; ++part) {
            const unsigned code = (std::to_integer<unsigned>(from[i]) >> (part * kBits)) & kMask;
            to[part * bytes + i] = static_cast<float>(code) * step + offset;
        }
    }
}

void codes(const std::byte* from, std::int64_t count, int bits, float step, float offset, float* to) {
    if (bits == 8) return codes_of<8>(from, count, step, offset, to);
    if (bits == 4) return codes_of<4>(from, count, step, offset, to);
    codes_of<2>(from, count, step, offset, to);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace mha2mla
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mha2mla {

HWY_EXPORT(bf16);
HWY_EXPORT(f16);
HWY_EXPORT(codes);

void decode_bf16(const std::byte* from, std::int64_t count, float* to) { HWY_DYNAMIC_DISPATCH(bf16)(from, count, to); }
void decode_f16(const std::byte* from, std::int64_t count, float* to) { HWY_DYNAMIC_DISPATCH(f16)(from, count, to); }
void decode_codes(const std::byte* from, std::int64_t count, int bits, float step, float offset, float* to) {
    HWY_DYNAMIC_DISPATCH(codes)(from, count, bits, step, offset, to);
}

void pack_codes(const std::uint8_t* codes, std::int64_t count, int bits, std::byte* to) {
    const std::int64_t bytes = code_bytes(count, bits);
    std::fill_n(to, bytes, std::byte{0});
    for (std::int64_t i = 0; i < count; ++i) {
        to[i % bytes] |= static_cast<std::byte>(codes[i] << (i / bytes * bits));
    }
}

}  // namespace mha2mla
#endif
