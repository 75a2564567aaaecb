#include "unpack.hpp"

#include <algorithm>

#include "../linalg/instruction_set.hpp"
#include "../linalg/vectors.hpp"

namespace mha2mla {
namespace {

/// Exponent and mantissa moved to where a float32 has them; the product corrects the exponent's bias, and subnormal
/// numbers with it. Infinity and NaN do not occur in a cache.
float f16_value(std::uint16_t half) {
    const std::uint32_t magnitude = (half & 0x7FFFU) << 13U;
    const std::uint32_t sign = (half & 0x8000U) << 16U;
    return std::bit_cast<float>(std::bit_cast<std::uint32_t>(std::bit_cast<float>(magnitude) * 0x1p112F) | sign);
}

/// The loops for vectors of kBytes bytes.
template <int kBytes>
struct Unpacking : VectorLoops<kBytes> {
    using Base = VectorLoops<kBytes>;
    using Base::kLanes;
    using typename Base::Bytes, typename Base::Floats, typename Base::Halves, typename Base::Ints, typename Base::Words;

    MHA2MLA_INLINE void bf16(const std::byte* from, std::int64_t count, float* to) {
        std::int64_t i = 0;
        Floats v;
        for (; i + kLanes <= count; i += kLanes) {
            Base::load(reinterpret_cast<const std::uint16_t*>(from + 2 * i), v);
            Base::store(v, to + i);
        }
        for (; i < count; ++i) to[i] = bf16_value(load_half(from + 2 * i));
    }

    MHA2MLA_INLINE void f16(const std::byte* from, std::int64_t count, float* to) {
        std::int64_t i = 0;
        for (; i + kLanes <= count; i += kLanes) {
            Halves halves;
            std::memcpy(&halves, from + 2 * i, sizeof halves);
            const Words words = __builtin_convertvector(halves, Words);
            const Floats magnitude = (Floats)((words & 0x7FFFU) << 13U) * 0x1p112F;
            Base::store((Floats)((Words)magnitude | ((words & 0x8000U) << 16U)), to + i);
        }
        for (; i < count; ++i) to[i] = f16_value(load_half(from + 2 * i));
    }

    template <int kBits>
    MHA2MLA_INLINE void codes(const std::byte* from, std::int64_t count, float step, float offset, float* to) {
        constexpr unsigned kMask = (1U << kBits) - 1U;
        const std::int64_t bytes = code_bytes(count, kBits);
        std::int64_t i = 0;
        for (; i + kLanes <= bytes && (8 / kBits - 1) * bytes + i + kLanes <= count; i += kLanes) {
            Bytes packed;
            std::memcpy(&packed, from + i, sizeof packed);
            // In two steps: g++ 12 takes the direct one apart, number by number.
            const Ints words = __builtin_convertvector(__builtin_convertvector(packed, Halves), Ints);
            for (int part = 0; part < 8 / kBits; ++part) {
                const Floats code =
                    __builtin_convertvector((words >> (part * kBits)) & static_cast<std::int32_t>(kMask), Floats);
                Base::store(code * step + offset, to + part * bytes + i);
            }
        }
        for (; i < bytes; ++i) {
            for (int part = 0; part < 8 / kBits && part * bytes + i < count; ++part) {
                const unsigned code = (std::to_integer<unsigned>(from[i]) >> (part * kBits)) & kMask;
                to[part * bytes + i] = static_cast<float>(code) * step + offset;
            }
        }
    }

    MHA2MLA_INLINE void codes(const std::byte* from, std::int64_t count, int bits, float step, float offset,
                              float* to) {
        if (bits == 8) return codes<8>(from, count, step, offset, to);
        if (bits == 4) return codes<4>(from, count, step, offset, to);
        codes<2>(from, count, step, offset, to);
    }
};

/// One row per instruction set.
struct Kernels {
    void (*bf16)(const std::byte*, std::int64_t, float*);
    void (*f16)(const std::byte*, std::int64_t, float*);
    void (*codes)(const std::byte*, std::int64_t, int, float, float, float*);
};

#define MHA2MLA_UNPACKING(name, bytes, target)                                                              \
    target void name##_bf16(const std::byte* from, std::int64_t count, float* to) {                         \
        Unpacking<bytes>::bf16(from, count, to);                                                            \
    }                                                                                                       \
    target void name##_f16(const std::byte* from, std::int64_t count, float* to) {                          \
        Unpacking<bytes>::f16(from, count, to);                                                             \
    }                                                                                                       \
    target void name##_codes(const std::byte* from, std::int64_t count, int bits, float step, float offset, \
                             float* to) {                                                                   \
        Unpacking<bytes>::codes(from, count, bits, step, offset, to);                                       \
    }                                                                                                       \
    constexpr Kernels name = {name##_bf16, name##_f16, name##_codes}

MHA2MLA_UNPACKING(kBaseline, 16, );
#if defined(__x86_64__)
MHA2MLA_UNPACKING(kAvx2, 32, MHA2MLA_AVX2);
MHA2MLA_UNPACKING(kAvx512, 64, MHA2MLA_AVX512);
const Kernels& best() { return best_of(kBaseline, kAvx2, kAvx512); }
#else
const Kernels& best() { return kBaseline; }
#endif

}  // namespace

void decode_bf16(const std::byte* from, std::int64_t count, float* to) { best().bf16(from, count, to); }
void decode_f16(const std::byte* from, std::int64_t count, float* to) { best().f16(from, count, to); }
void decode_codes(const std::byte* from, std::int64_t count, int bits, float step, float offset, float* to) {
    best().codes(from, count, bits, step, offset, to);
}

void pack_codes(const std::uint8_t* codes, std::int64_t count, int bits, std::byte* to) {
    const std::int64_t bytes = code_bytes(count, bits);
    std::fill_n(to, bytes, std::byte{0});
    for (std::int64_t i = 0; i < count; ++i) {
        to[i % bytes] |= static_cast<std::byte>(codes[i] << (i / bytes * bits));
    }
}

}  // namespace mha2mla
