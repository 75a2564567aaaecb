#include "narrow.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "instruction_set.hpp"

#define MHA2MLA_INLINE static inline __attribute__((always_inline))
// Sums stay in registers only if the loops over them are unrolled before the compiler looks for registers.
#if defined(__clang__)
#define MHA2MLA_UNROLL _Pragma("unroll")
#else
#define MHA2MLA_UNROLL _Pragma("GCC unroll 8")
#endif

namespace mha2mla {
namespace {

template <int>
struct NarrowVectors;
template <>
struct NarrowVectors<16> {
    using Floats = float __attribute__((vector_size(16)));
    using Words = std::uint32_t __attribute__((vector_size(16)));
    using Ints = std::int32_t __attribute__((vector_size(16)));
    using Halves = std::uint16_t __attribute__((vector_size(8)));
    using Bytes = std::uint8_t __attribute__((vector_size(4)));
};
template <>
struct NarrowVectors<32> {
    using Floats = float __attribute__((vector_size(32)));
    using Words = std::uint32_t __attribute__((vector_size(32)));
    using Ints = std::int32_t __attribute__((vector_size(32)));
    using Halves = std::uint16_t __attribute__((vector_size(16)));
    using Bytes = std::uint8_t __attribute__((vector_size(8)));
};

float bf16_value(std::uint16_t half) { return std::bit_cast<float>(static_cast<std::uint32_t>(half) << 16U); }

/// Exponent and mantissa moved to where a float32 has them; the product corrects the exponent's bias, and subnormal
/// numbers with it. Infinity and NaN do not occur in a cache.
float f16_value(std::uint16_t half) {
    const std::uint32_t magnitude = (half & 0x7FFFU) << 13U;
    const std::uint32_t sign = (half & 0x8000U) << 16U;
    return std::bit_cast<float>(std::bit_cast<std::uint32_t>(std::bit_cast<float>(magnitude) * 0x1p112F) | sign);
}

std::uint16_t load_half(const std::byte* from) {
    std::uint16_t half = 0;
    std::memcpy(&half, from, 2);
    return half;
}

/// Rows of b that stay in the level-1 cache while all rows of a pass.
constexpr std::int64_t kRowsInCache = 12;

/// The loops for vectors of kBytes bytes.
template <int kBytes>
struct NarrowLoops {
    using Floats = typename NarrowVectors<kBytes>::Floats;
    using Words = typename NarrowVectors<kBytes>::Words;
    using Ints = typename NarrowVectors<kBytes>::Ints;
    using Halves = typename NarrowVectors<kBytes>::Halves;
    using Bytes = typename NarrowVectors<kBytes>::Bytes;
    static constexpr std::int64_t kLanes = kBytes / 4;

    MHA2MLA_INLINE void load(const float* from, Floats& to) { std::memcpy(&to, from, kBytes); }
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

    MHA2MLA_INLINE float sum(const Floats& v) {
        using Four = float __attribute__((vector_size(16)));
        Four four;
        if constexpr (kBytes == 32) {
            four = __builtin_shufflevector(v, v, 0, 1, 2, 3) + __builtin_shufflevector(v, v, 4, 5, 6, 7);
        } else {
            four = v;
        }
        four = four + __builtin_shufflevector(four, four, 2, 3, 0, 1);
        return four[0] + four[1];
    }

    /// c[M, N] = a[M, k] * b[N, k]ᵀ in registers.
    template <int M, int N, typename B>
    MHA2MLA_INLINE void dots(std::int64_t k, const float* a, std::int64_t a_stride, const B* b, std::int64_t b_stride,
                             bool add, float* c, std::int64_t c_stride) {
        Floats sums[M][N] = {};
        std::int64_t i = 0;
        for (; i + kLanes <= k; i += kLanes) {
            Floats columns[N];
            MHA2MLA_UNROLL
            for (int n = 0; n < N; ++n) load(b + n * b_stride + i, columns[n]);
            MHA2MLA_UNROLL
            for (int m = 0; m < M; ++m) {
                Floats row;
                load(a + m * a_stride + i, row);
                MHA2MLA_UNROLL
                for (int n = 0; n < N; ++n) sums[m][n] = sums[m][n] + row * columns[n];
            }
        }
        MHA2MLA_UNROLL
        for (int m = 0; m < M; ++m) {
            MHA2MLA_UNROLL
            for (int n = 0; n < N; ++n) {
                float total = sum(sums[m][n]);
                for (std::int64_t j = i; j < k; ++j) total += a[m * a_stride + j] * value(b + n * b_stride + j);
                c[m * c_stride + n] = add ? c[m * c_stride + n] + total : total;
            }
        }
    }

    template <int M, typename B>
    MHA2MLA_INLINE void dots_of_rows(std::int64_t n, std::int64_t k, const float* a, std::int64_t a_stride, const B* b,
                                     std::int64_t b_stride, bool add, float* c, std::int64_t c_stride) {
        std::int64_t j = 0;
        for (; j + 3 <= n; j += 3) {
            dots<M, 3>(k, a, a_stride, b + j * b_stride, b_stride, add, c + j, c_stride);
        }
        for (; j < n; ++j) dots<M, 1>(k, a, a_stride, b + j * b_stride, b_stride, add, c + j, c_stride);
    }

    template <typename B>
    MHA2MLA_INLINE void abt(std::int64_t m, std::int64_t n, std::int64_t k, MatrixIn a, const B* b,
                            std::int64_t b_stride, bool add, MatrixOut c) {
        for (std::int64_t first = 0; first < n; first += kRowsInCache) {
            const std::int64_t rows = std::min(kRowsInCache, n - first);
            const B* part = b + first * b_stride;
            std::int64_t i = 0;
            for (; i + 4 <= m; i += 4) {
                dots_of_rows<4>(rows, k, a.data + i * a.stride, a.stride, part, b_stride, add,
                                c.data + i * c.stride + first, c.stride);
            }
            for (; i < m; ++i) {
                dots_of_rows<1>(rows, k, a.data + i * a.stride, a.stride, part, b_stride, add,
                                c.data + i * c.stride + first, c.stride);
            }
        }
    }

    /// c[M, V vectors] += a[M, n] * b[n, V vectors] in registers.
    template <int M, int V>
    MHA2MLA_INLINE void sums(std::int64_t n, const float* a, std::int64_t a_stride, const float* b,
                             std::int64_t b_stride, float* c, std::int64_t c_stride) {
        Floats totals[M][V];
        MHA2MLA_UNROLL
        for (int m = 0; m < M; ++m) {
            MHA2MLA_UNROLL
            for (int v = 0; v < V; ++v) load(c + m * c_stride + v * kLanes, totals[m][v]);
        }
        for (std::int64_t j = 0; j < n; ++j) {
            Floats row[V];
            MHA2MLA_UNROLL
            for (int v = 0; v < V; ++v) load(b + j * b_stride + v * kLanes, row[v]);
            MHA2MLA_UNROLL
            for (int m = 0; m < M; ++m) {
                const float weight = a[m * a_stride + j];
                MHA2MLA_UNROLL
                for (int v = 0; v < V; ++v) totals[m][v] = totals[m][v] + row[v] * weight;
            }
        }
        MHA2MLA_UNROLL
        for (int m = 0; m < M; ++m) {
            MHA2MLA_UNROLL
            for (int v = 0; v < V; ++v) store(totals[m][v], c + m * c_stride + v * kLanes);
        }
    }

    template <int V>
    MHA2MLA_INLINE void sums_of_columns(std::int64_t m, std::int64_t n, const MatrixIn& a, const float* b,
                                        std::int64_t b_stride, float* c, std::int64_t c_stride) {
        std::int64_t i = 0;
        for (; i + 4 <= m; i += 4) {
            sums<4, V>(n, a.data + i * a.stride, a.stride, b, b_stride, c + i * c_stride, c_stride);
        }
        for (; i < m; ++i) sums<1, V>(n, a.data + i * a.stride, a.stride, b, b_stride, c + i * c_stride, c_stride);
    }

    MHA2MLA_INLINE void ab(std::int64_t m, std::int64_t k, std::int64_t n, MatrixIn a, MatrixIn b, MatrixOut c) {
        std::int64_t column = 0;
        for (; column + 3 * kLanes <= k; column += 3 * kLanes) {
            sums_of_columns<3>(m, n, a, b.data + column, b.stride, c.data + column, c.stride);
        }
        for (; column + kLanes <= k; column += kLanes) {
            sums_of_columns<1>(m, n, a, b.data + column, b.stride, c.data + column, c.stride);
        }
        for (std::int64_t i = 0; i < m && column < k; ++i) {
            for (std::int64_t j = 0; j < n; ++j) {
                const float weight = a.data[i * a.stride + j];
                for (std::int64_t l = column; l < k; ++l) {
                    c.data[i * c.stride + l] += weight * b.data[j * b.stride + l];
                }
            }
        }
    }

    MHA2MLA_INLINE void bf16(const std::byte* from, std::int64_t count, float* to) {
        std::int64_t i = 0;
        Floats v;
        for (; i + kLanes <= count; i += kLanes) {
            load(reinterpret_cast<const std::uint16_t*>(from + 2 * i), v);
            store(v, to + i);
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
            store((Floats)((Words)magnitude | ((words & 0x8000U) << 16U)), to + i);
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
            const Ints words = __builtin_convertvector(packed, Ints);
            for (int part = 0; part < 8 / kBits; ++part) {
                const Floats code =
                    __builtin_convertvector((words >> (part * kBits)) & static_cast<std::int32_t>(kMask), Floats);
                store(code * step + offset, to + part * bytes + i);
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
struct NarrowKernels {
    void (*abt)(std::int64_t, std::int64_t, std::int64_t, MatrixIn, MatrixIn, bool, MatrixOut);
    void (*abt_bf16)(std::int64_t, std::int64_t, std::int64_t, MatrixIn, const std::byte*, MatrixOut);
    void (*ab)(std::int64_t, std::int64_t, std::int64_t, MatrixIn, MatrixIn, MatrixOut);
    void (*bf16)(const std::byte*, std::int64_t, float*);
    void (*f16)(const std::byte*, std::int64_t, float*);
    void (*codes)(const std::byte*, std::int64_t, int, float, float, float*);
};

#define MHA2MLA_NARROW_KERNELS(name, bytes, target)                                                              \
    target void name##_abt(std::int64_t m, std::int64_t n, std::int64_t k, MatrixIn a, MatrixIn b, bool add,     \
                           MatrixOut c) {                                                                        \
        NarrowLoops<bytes>::abt(m, n, k, a, b.data, b.stride, add, c);                                           \
    }                                                                                                            \
    target void name##_abt_bf16(std::int64_t m, std::int64_t n, std::int64_t k, MatrixIn a, const std::byte* b,  \
                                MatrixOut c) {                                                                   \
        NarrowLoops<bytes>::abt(m, n, k, a, reinterpret_cast<const std::uint16_t*>(b), k, false, c);             \
    }                                                                                                            \
    target void name##_ab(std::int64_t m, std::int64_t k, std::int64_t n, MatrixIn a, MatrixIn b, MatrixOut c) { \
        NarrowLoops<bytes>::ab(m, k, n, a, b, c);                                                                \
    }                                                                                                            \
    target void name##_bf16(const std::byte* from, std::int64_t count, float* to) {                              \
        NarrowLoops<bytes>::bf16(from, count, to);                                                               \
    }                                                                                                            \
    target void name##_f16(const std::byte* from, std::int64_t count, float* to) {                               \
        NarrowLoops<bytes>::f16(from, count, to);                                                                \
    }                                                                                                            \
    target void name##_codes(const std::byte* from, std::int64_t count, int bits, float step, float offset,      \
                             float* to) {                                                                        \
        NarrowLoops<bytes>::codes(from, count, bits, step, offset, to);                                          \
    }                                                                                                            \
    constexpr NarrowKernels name = {name##_abt, name##_abt_bf16, name##_ab, name##_bf16, name##_f16, name##_codes}

MHA2MLA_NARROW_KERNELS(kBaseline, 16, );
#if defined(__x86_64__)
MHA2MLA_NARROW_KERNELS(kAvx2, 32, __attribute__((target("avx2,fma"))));
#endif

const NarrowKernels& best() {
#if defined(__x86_64__)
    if (has_avx2()) return kAvx2;
#endif
    return kBaseline;
}

}  // namespace

void narrow_abt(std::int64_t m, std::int64_t n, std::int64_t k, MatrixIn a, MatrixIn b, bool add, MatrixOut c) {
    best().abt(m, n, k, a, b, add, c);
}
void narrow_abt_bf16(std::int64_t m, std::int64_t n, std::int64_t k, MatrixIn a, const std::byte* b, MatrixOut c) {
    best().abt_bf16(m, n, k, a, b, c);
}
void narrow_ab(std::int64_t m, std::int64_t k, std::int64_t n, MatrixIn a, MatrixIn b, MatrixOut c) {
    best().ab(m, k, n, a, b, c);
}
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
