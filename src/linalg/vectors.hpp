#pragma once
/// Vectors as long as a register of an instruction set (GCC's vector extensions). Loops are written once, on them, and
/// inlined into one function for each set. Vectors go by reference: how one would be passed by value depends on the
/// set.

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

#define MHA2MLA_INLINE static inline __attribute__((always_inline))
// Sums stay in registers only if the loops over them are unrolled before the compiler looks for registers.
#if defined(__clang__)
#define MHA2MLA_UNROLL _Pragma("unroll")
#else
#define MHA2MLA_UNROLL _Pragma("GCC unroll 16")
#endif

namespace mha2mla {

template <typename Number, int kBytes>
struct VectorType {
    using Type __attribute__((vector_size(kBytes))) = Number;
};
/// As many numbers as kBytes hold.
template <typename Number, int kBytes>
using VectorOf = typename VectorType<Number, kBytes>::Type;

using FourFloats = VectorOf<float, 16>;

inline float bf16_value(std::uint16_t half) { return std::bit_cast<float>(static_cast<std::uint32_t>(half) << 16U); }

inline std::uint16_t load_half(const std::byte* from) {
    std::uint16_t half = 0;
    std::memcpy(&half, from, 2);
    return half;
}

template <int kBytes>
struct VectorLoops {
    using Floats = VectorOf<float, kBytes>;
    using Words = VectorOf<std::uint32_t, kBytes>;
    using Ints = VectorOf<std::int32_t, kBytes>;
    using Halves = VectorOf<std::uint16_t, kBytes / 2>;  // as many as Floats
    using Bytes = VectorOf<std::uint8_t, kBytes / 4>;
    static constexpr std::int64_t kLanes = kBytes / 4;

    MHA2MLA_INLINE void load(const float* from, Floats& to) { std::memcpy(&to, from, kBytes); }
    /// BF16 of any alignment.
    MHA2MLA_INLINE void load(const std::uint16_t* from, Floats& to) {
        Halves halves;
        std::memcpy(&halves, from, sizeof halves);
        to = (Floats)(__builtin_convertvector(halves, Words) << 16U);
    }
    MHA2MLA_INLINE void store(const Floats& from, float* to) { std::memcpy(to, &from, kBytes); }
    MHA2MLA_INLINE float value(const float* from) { return *from; }
    MHA2MLA_INLINE float value(const std::uint16_t* from) {
        return bf16_value(load_half(reinterpret_cast<const std::byte*>(from)));
    }

    /// Cody-Waite reduction to |r| <= ln(2)/2, the polynomial of Cephes' expf, and 2^n through its exponent bits.
    MHA2MLA_INLINE void exp(Floats& x) {
        constexpr float kRound = 12582912.0F;  // 1.5 * 2^23: adding it rounds, with the whole number in the low bits
        const Floats low = Floats{} - 87.3F;
        const Floats high = Floats{} + 88.3F;
        const Ints vanishes = x < low;
        x = x < low ? low : x;
        x = x > high ? high : x;
        const Floats rounded = x * 1.44269504088896341F + kRound;
        const Floats n = rounded - kRound;
        const Floats r = x - n * 0.693359375F + n * 2.12194440e-4F;
        Floats p = r * 1.9875691500e-4F + 1.3981999507e-3F;
        p = p * r + 8.3334519073e-3F;
        p = p * r + 4.1665795894e-2F;
        p = p * r + 1.6666665459e-1F;
        p = p * r + 5.0000001201e-1F;
        p = p * (r * r) + r + 1.0F;
        const Ints power = ((Ints)rounded - 0x4B400000 + 127) << 23;
        p = p * (Floats)power;
        x = (Floats)((Ints)p & ~vanishes);
    }

    /// The sum of each of four vectors.
    MHA2MLA_INLINE void sum_of_four(const Floats& a, const Floats& b, const Floats& c, const Floats& d,
                                    FourFloats& sums) {
        Floats ab, cd, all;
        if constexpr (kBytes == 64) {
            ab = __builtin_shufflevector(a, b, 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29) +
                 __builtin_shufflevector(a, b, 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31);
            cd = __builtin_shufflevector(c, d, 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29) +
                 __builtin_shufflevector(c, d, 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31);
            all = __builtin_shufflevector(ab, cd, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29) +
                  __builtin_shufflevector(ab, cd, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
            const auto half = __builtin_shufflevector(all, all, 0, 1, 2, 3, 4, 5, 6, 7) +
                              __builtin_shufflevector(all, all, 8, 9, 10, 11, 12, 13, 14, 15);
            sums = __builtin_shufflevector(half, half, 0, 1, 2, 3) + __builtin_shufflevector(half, half, 4, 5, 6, 7);
        } else if constexpr (kBytes == 32) {
            ab = __builtin_shufflevector(a, b, 0, 8, 1, 9, 4, 12, 5, 13) +
                 __builtin_shufflevector(a, b, 2, 10, 3, 11, 6, 14, 7, 15);
            cd = __builtin_shufflevector(c, d, 0, 8, 1, 9, 4, 12, 5, 13) +
                 __builtin_shufflevector(c, d, 2, 10, 3, 11, 6, 14, 7, 15);
            all = __builtin_shufflevector(ab, cd, 0, 1, 8, 9, 4, 5, 12, 13) +
                  __builtin_shufflevector(ab, cd, 2, 3, 10, 11, 6, 7, 14, 15);
            sums = __builtin_shufflevector(all, all, 0, 1, 2, 3) + __builtin_shufflevector(all, all, 4, 5, 6, 7);
        } else {
            ab = __builtin_shufflevector(a, b, 0, 4, 1, 5) + __builtin_shufflevector(a, b, 2, 6, 3, 7);
            cd = __builtin_shufflevector(c, d, 0, 4, 1, 5) + __builtin_shufflevector(c, d, 2, 6, 3, 7);
            sums = __builtin_shufflevector(ab, cd, 0, 1, 4, 5) + __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
        }
    }
};

}  // namespace mha2mla
