// Products of BF16, two at a time, by AVX512_BF16. Highway 1.0.3 has no operation for it, so these are intrinsics: they
// take half the time of the float32 loops on a tile in the cache (Zen 5, micro_benchmarks --benchmark_filter=Tile).
#include "attend.hpp"

#include "../linalg/targets.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "forward/attend_bf16.cpp"
#include <hwy/foreach_target.h>

#include "../linalg/vectors-inl.h"

#if HWY_TARGET == HWY_AVX3
#include <immintrin.h>

#include <algorithm>

// What AVX512_BF16 multiplies is pairs of numbers: of a key or query two neighbouring ones, of weights and values those
// of two neighbouring tokens.
#define MHA2MLA_BF16 __attribute__((target(HWY_TARGET_STR_AVX3 ",avx512bf16")))
#define MHA2MLA_BF16_INLINE MHA2MLA_BF16 static inline __attribute__((always_inline))

namespace mha2mla {
namespace HWY_NAMESPACE {
namespace {

using Floats = hn::Full512<float>;
constexpr Floats kFloats;
constexpr std::int64_t kLanes = 16;
constexpr std::int64_t kHalves = 32;
constexpr int kTokens = 8;  // whose logits of a panel or two are held in registers

MHA2MLA_BF16_INLINE __m512 add_products(__m512 sum, __m512i a, __m512i b) {
    return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b);
}
MHA2MLA_BF16_INLINE __m512i pair_everywhere(const std::byte* from) {
    std::int32_t pair = 0;
    std::memcpy(&pair, from, sizeof pair);
    return _mm512_set1_epi32(pair);
}
MHA2MLA_BF16_INLINE __mmask16 first_lanes(std::int64_t count) {
    return static_cast<__mmask16>(count >= kLanes ? 0xFFFFU : (1U << static_cast<unsigned>(count)) - 1U);
}
MHA2MLA_BF16_INLINE __mmask32 first_halves(std::int64_t count) {
    return count >= kHalves ? 0xFFFFFFFFU : (1U << static_cast<unsigned>(count)) - 1U;
}

MHA2MLA_BF16 void convert(const float* q, std::int64_t count, std::byte* to) {
    for (std::int64_t i = 0; i < count; i += kLanes) {
        const __mmask16 mask = first_lanes(count - i);
        const __m256bh halves = _mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(mask, q + i));
        _mm256_mask_storeu_epi16(to + 2 * i, mask, (__m256i)halves);
    }
}

MHA2MLA_BF16 void pack(std::int64_t rows, std::int64_t dim, MatrixIn q, std::int64_t first_row, std::byte* panel) {
    for (std::int64_t row = 0; row < rows; ++row) {
        for (std::int64_t d = 0; d < dim; d += kLanes) {
            alignas(32) std::uint32_t pairs[kLanes / 2];
            convert(q.data + row * q.stride + d, std::min(kLanes, dim - d), reinterpret_cast<std::byte*>(pairs));
            for (std::int64_t pair = 0; pair < std::min(kLanes, dim - d) / 2; ++pair) {
                std::memcpy(panel + 4 * ((d / 2 + pair) * kPanelRows + first_row + row), pairs + pair, 4);
            }
        }
    }
}

/// logits[T, P panels] in registers.
template <int T, int P>
MHA2MLA_BF16_INLINE void panel_block(std::int64_t dim, const TileIn& tile, const std::byte* q, std::int64_t panel,
                                     const MatrixOut& c) {
    __m512 sums[T][P];
    MHA2MLA_UNROLL
    for (int t = 0; t < T; ++t) {
        MHA2MLA_UNROLL
        for (int p = 0; p < P; ++p) sums[t][p] = _mm512_loadu_ps(c.data + t * c.stride + p * kPanelRows);
    }
    for (std::int64_t pair = 0; pair < dim / 2; ++pair) {
        __m512i columns[P];
        MHA2MLA_UNROLL
        for (int p = 0; p < P; ++p) columns[p] = _mm512_loadu_si512(q + p * panel + pair * 64);
        MHA2MLA_UNROLL
        for (int t = 0; t < T; ++t) {
            const __m512i numbers = pair_everywhere(tile.data + t * tile.stride + 4 * pair);
            MHA2MLA_UNROLL
            for (int p = 0; p < P; ++p) sums[t][p] = add_products(sums[t][p], columns[p], numbers);
        }
    }
    MHA2MLA_UNROLL
    for (int t = 0; t < T; ++t) {
        MHA2MLA_UNROLL
        for (int p = 0; p < P; ++p) _mm512_storeu_ps(c.data + t * c.stride + p * kPanelRows, sums[t][p]);
    }
}

template <int P>
MHA2MLA_BF16_INLINE void panels_of_tokens(std::int64_t tokens, std::int64_t dim, const TileIn& tile, const std::byte* q,
                                          std::int64_t panel, const MatrixOut& c) {
    std::int64_t t = 0;
    for (; t + kTokens <= tokens; t += kTokens) {
        panel_block<kTokens, P>(dim, {tile.data + t * tile.stride, tile.stride}, q, panel,
                                {c.data + t * c.stride, c.stride});
    }
    for (; t < tokens; ++t) {
        panel_block<1, P>(dim, {tile.data + t * tile.stride, tile.stride}, q, panel, {c.data + t * c.stride, c.stride});
    }
}

MHA2MLA_BF16 void panel_logits(std::int64_t tokens, std::int64_t panels, std::int64_t dim, TileIn tile,
                               const std::byte* q, std::int64_t panel_bytes, MatrixOut logits) {
    std::int64_t p = 0;
    for (; p + 2 <= panels; p += 2) {
        panels_of_tokens<2>(tokens, dim, tile, q + p * panel_bytes, panel_bytes,
                            {logits.data + p * kPanelRows, logits.stride});
    }
    if (p < panels) {
        panels_of_tokens<1>(tokens, dim, tile, q + p * panel_bytes, panel_bytes,
                            {logits.data + p * kPanelRows, logits.stride});
    }
}

/// logits[T, N] of dot products, N <= 4.
template <int T, int N>
MHA2MLA_BF16_INLINE void dots(std::int64_t dim, const TileIn& tile, const std::byte* q, const MatrixOut& c) {
    __m512 sums[T][4];
    MHA2MLA_UNROLL
    for (int t = 0; t < T; ++t) {
        MHA2MLA_UNROLL
        for (int n = 0; n < 4; ++n) sums[t][n] = _mm512_setzero_ps();
    }
    for (std::int64_t i = 0; i < dim; i += kHalves) {
        const __mmask32 mask = first_halves(dim - i);
        __m512i rows[N];
        MHA2MLA_UNROLL
        for (int n = 0; n < N; ++n) rows[n] = _mm512_maskz_loadu_epi16(mask, q + 2 * (n * dim + i));
        MHA2MLA_UNROLL
        for (int t = 0; t < T; ++t) {
            const __m512i numbers = _mm512_maskz_loadu_epi16(mask, tile.data + t * tile.stride + 2 * i);
            MHA2MLA_UNROLL
            for (int n = 0; n < N; ++n) sums[t][n] = add_products(sums[t][n], rows[n], numbers);
        }
    }
    MHA2MLA_UNROLL
    for (int t = 0; t < T; ++t) {
        float totals[4];
        _mm_storeu_ps(totals, sum_of_four(kFloats, {sums[t][0]}, {sums[t][1]}, {sums[t][2]}, {sums[t][3]}).raw);
        MHA2MLA_UNROLL
        for (int n = 0; n < N; ++n) c.data[t * c.stride + n] += totals[n];
    }
}

template <int N>
MHA2MLA_BF16_INLINE void dots_of_tokens(std::int64_t tokens, std::int64_t dim, const TileIn& tile, const std::byte* q,
                                        const MatrixOut& c) {
    std::int64_t t = 0;
    for (; t + 4 <= tokens; t += 4) {
        dots<4, N>(dim, {tile.data + t * tile.stride, tile.stride}, q, {c.data + t * c.stride, c.stride});
    }
    for (; t < tokens; ++t) {
        dots<1, N>(dim, {tile.data + t * tile.stride, tile.stride}, q, {c.data + t * c.stride, c.stride});
    }
}

MHA2MLA_BF16 void row_logits(std::int64_t tokens, std::int64_t rows, std::int64_t dim, TileIn tile, const std::byte* q,
                             MatrixOut logits) {
    std::int64_t row = 0;
    for (; row + 4 <= rows; row += 4) {
        dots_of_tokens<4>(tokens, dim, tile, q + 2 * row * dim, {logits.data + row, logits.stride});
    }
    for (; row < rows; ++row) {
        dots_of_tokens<1>(tokens, dim, tile, q + 2 * row * dim, {logits.data + row, logits.stride});
    }
}

/// exp(logit - top) as BF16, to nearest, in the upper half of each lane.
MHA2MLA_BF16_INLINE __m512i weights_of(const float* logits, __m512 top) {
    const __m512 weights = exp(kFloats, {_mm512_sub_ps(_mm512_loadu_ps(logits), top)}).raw;
    const __m512i rounded = _mm512_add_epi32(_mm512_castps_si512(weights), _mm512_set1_epi32(0x8000));
    return _mm512_and_si512(rounded, _mm512_set1_epi32(-0x10000));
}

/// The sum is that of the rounded weights, so that they still are shares of 1. They go where logits lay that are no
/// longer needed: [tokens / 2, rows], as pairs.
MHA2MLA_BF16 bool softmax(std::int64_t tokens, std::int64_t rows, MatrixOut logits, float* maximum, float* sum,
                          float* factor) {
    bool changed = false;
    for (std::int64_t row = 0; row < rows; row += kLanes) {
        const __m512 before = _mm512_loadu_ps(maximum + row);
        __m512 top = before;
        for (std::int64_t t = 0; t < tokens; ++t) {
            top = _mm512_max_ps(_mm512_loadu_ps(logits.data + t * logits.stride + row), top);
        }
        const __m512 kept = exp(kFloats, {_mm512_sub_ps(before, top)}).raw;
        __m512 total = _mm512_mul_ps(_mm512_loadu_ps(sum + row), kept);
        _mm512_storeu_ps(maximum + row, top);
        _mm512_storeu_ps(factor + row, kept);
        changed = changed || _mm512_cmpneq_ps_mask(kept, _mm512_set1_ps(1.0F)) != 0;
        for (std::int64_t t = 0; t < tokens; t += 2) {
            const float* at = logits.data + t * logits.stride + row;
            const __m512i first = weights_of(at, top);
            const __m512i second = t + 1 < tokens ? weights_of(at + logits.stride, top) : _mm512_setzero_si512();
            total = _mm512_add_ps(_mm512_add_ps(total, _mm512_castsi512_ps(first)), _mm512_castsi512_ps(second));
            _mm512_storeu_si512(logits.data + t / 2 * logits.stride + row,
                                _mm512_or_si512(second, _mm512_maskz_srli_epi32(0xFFFF, first, 16)));
        }
        _mm512_storeu_ps(sum + row, total);
    }
    return changed;
}

/// @return pairs of tokens, [tokens / 2, width]
MHA2MLA_BF16 TileIn prepare_values(std::int64_t tokens, std::int64_t width, TileIn tile, std::byte* scratch) {
    const __m512i low = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38, 6, 37,
                                         5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
    const __m512i high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
    for (std::int64_t t = 0; t < tokens; t += 2) {
        const std::byte* from = tile.data + t * tile.stride;
        std::byte* to = scratch + t / 2 * width * 4;
        const std::int64_t to_second = t + 1 < tokens ? tile.stride : 0;
        const __mmask32 second = t + 1 < tokens ? 0xFFFFFFFFU : 0U;
        std::int64_t i = 0;
        for (; i + kHalves <= width; i += kHalves) {
            const __m512i a = _mm512_loadu_si512(from + 2 * i);
            const __m512i b = _mm512_maskz_loadu_epi16(second, from + to_second + 2 * i);
            _mm512_storeu_si512(to + 4 * i, _mm512_permutex2var_epi16(a, low, b));
            _mm512_storeu_si512(to + 4 * i + 64, _mm512_permutex2var_epi16(a, high, b));
        }
        if (i == width) continue;
        const __mmask32 mask = first_halves(width - i);
        const __m512i a = _mm512_maskz_loadu_epi16(mask, from + 2 * i);
        const __m512i b = _mm512_maskz_loadu_epi16(mask & second, from + to_second + 2 * i);
        _mm512_mask_storeu_epi32(to + 4 * i, first_lanes(width - i), _mm512_permutex2var_epi16(a, low, b));
        if (width - i > kLanes) {
            _mm512_mask_storeu_epi32(to + 4 * i + 64, first_lanes(width - i - kLanes),
                                     _mm512_permutex2var_epi16(a, high, b));
        }
    }
    return {scratch, width * 4};
}

/// out[M, V vectors] in registers, the last vector's lanes by mask.
template <int M, int V>
MHA2MLA_BF16_INLINE void sums(std::int64_t pairs, __mmask16 mask, const MatrixIn& weights, const TileIn& values,
                              const MatrixOut& out) {
    __m512 totals[M][V];
    MHA2MLA_UNROLL
    for (int m = 0; m < M; ++m) {
        MHA2MLA_UNROLL
        for (int v = 0; v < V; ++v) {
            totals[m][v] =
                _mm512_maskz_loadu_ps(v + 1 < V ? __mmask16{0xFFFF} : mask, out.data + m * out.stride + v * kLanes);
        }
    }
    for (std::int64_t pair = 0; pair < pairs; ++pair) {
        const std::byte* from = values.data + pair * values.stride;
        const float* weight = weights.data + pair * weights.stride;
        __m512i numbers[V];
        MHA2MLA_UNROLL
        for (int v = 0; v < V; ++v) {
            numbers[v] = _mm512_maskz_loadu_epi32(v + 1 < V ? __mmask16{0xFFFF} : mask, from + v * 64);
        }
        MHA2MLA_UNROLL
        for (int m = 0; m < M; ++m) {
            const __m512i both = pair_everywhere(reinterpret_cast<const std::byte*>(weight + m));
            MHA2MLA_UNROLL
            for (int v = 0; v < V; ++v) totals[m][v] = add_products(totals[m][v], numbers[v], both);
        }
    }
    MHA2MLA_UNROLL
    for (int m = 0; m < M; ++m) {
        MHA2MLA_UNROLL
        for (int v = 0; v < V; ++v) {
            _mm512_mask_storeu_ps(out.data + m * out.stride + v * kLanes, v + 1 < V ? __mmask16{0xFFFF} : mask,
                                  totals[m][v]);
        }
    }
}

/// out[M, dim]
template <int M>
MHA2MLA_BF16_INLINE void sums_of_rows(std::int64_t pairs, std::int64_t dim, const MatrixIn& weights,
                                      const TileIn& values, const MatrixOut& out) {
    constexpr int kWide = std::min(4, 16 / M);
    std::int64_t column = 0;
    for (; column + kWide * kLanes <= dim; column += kWide * kLanes) {
        sums<M, kWide>(pairs, 0xFFFF, weights, {values.data + 4 * column, values.stride},
                       {out.data + column, out.stride});
    }
    for (; column < dim; column += kLanes) {
        sums<M, 1>(pairs, first_lanes(dim - column), weights, {values.data + 4 * column, values.stride},
                   {out.data + column, out.stride});
    }
}

constexpr std::int64_t kColumnsInCache = 64;

MHA2MLA_BF16 void weigh(std::int64_t tokens, std::int64_t rows, std::int64_t dim, MatrixIn weights, TileIn values,
                        std::int64_t first_column, MatrixOut out) {
    const std::int64_t pairs = (tokens + 1) / 2;
    for (std::int64_t column = 0; column < dim; column += kColumnsInCache) {
        const std::int64_t columns = std::min(kColumnsInCache, dim - column);
        const TileIn numbers{values.data + 4 * (first_column + column), values.stride};
        std::int64_t row = 0;
        for (; row + 8 <= rows; row += 8) {
            sums_of_rows<8>(pairs, columns, {weights.data + row, weights.stride}, numbers,
                            {out.data + row * out.stride + column, out.stride});
        }
        for (; row + 4 <= rows; row += 4) {
            sums_of_rows<4>(pairs, columns, {weights.data + row, weights.stride}, numbers,
                            {out.data + row * out.stride + column, out.stride});
        }
        for (; row < rows; ++row) {
            sums_of_rows<1>(pairs, columns, {weights.data + row, weights.stride}, numbers,
                            {out.data + row * out.stride + column, out.stride});
        }
    }
}

constexpr TileArithmetic kBf16Tiles = {2, convert, pack, panel_logits, row_logits, softmax, prepare_values, weigh};

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace mha2mla
#endif

#if HWY_ONCE
namespace mha2mla {

const TileArithmetic* bf16_tiles() {
#if HWY_ARCH_X86
    // Asked once: a virtual machine answers only through its host.
    static const bool supported =
        (hwy::SupportedTargets() & HWY_AVX3) != 0 && __builtin_cpu_supports("avx512bf16") != 0;
    if (supported) return &N_AVX3::kBf16Tiles;
#endif
    return nullptr;
}

}  // namespace mha2mla
#endif
