#include "narrow.hpp"

#include <algorithm>

#include "targets.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "linalg/narrow.cpp"
#include <hwy/foreach_target.h>

#include "vectors-inl.h"

HWY_BEFORE_NAMESPACE();
namespace mha2mla {
namespace HWY_NAMESPACE {
namespace {

/// Rows of b that stay in the level-1 cache while all rows of a pass.
constexpr std::int64_t kRowsInCache = 12;
/// Columns of b that do.
constexpr std::int64_t kColumnsInCache = 64;

/// A matrix of weights, to be read along either side.
struct Weights {
    const float* data;
    std::int64_t row_step, column_step;
};

using Floats = hn::CappedTag<float, 16>;
constexpr Floats kFloats;
using Vector = hn::Vec<Floats>;
constexpr std::int64_t kLanes = hn::MaxLanes(kFloats);
// Sums that are held in registers: of 32 with AVX-512, of 16 without.
constexpr int kDotRows = kLanes == 16 ? 4 : 2;
constexpr int kSums = kLanes == 16 ? 16 : 8;

/// Whether b is prefetched: if it comes from memory, row after row, and rows are too short a stream for the processor
/// to read ahead of them itself.
enum class Ahead { no, yes };
constexpr std::int64_t kReadAhead = 4096;  // bytes, and the longest row for which that helps

/// Prefetches what is read while the next `bytes` are.
HWY_INLINE void read_ahead(const void* from, std::int64_t bytes) {
    const auto* ahead = static_cast<const std::byte*>(from) + kReadAhead;
    for (std::int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(ahead + i);
}

/// c[M, N] = a[M, k] * b[N, k]ᵀ in registers, N <= 4.
template <int M, int N, Ahead kAhead, typename B>
HWY_INLINE void dots(std::int64_t k, const float* a, std::int64_t a_stride, const B* b, std::int64_t b_stride, bool add,
                     float* c, std::int64_t c_stride) {
    Vector sums[M][4];
    MHA2MLA_UNROLL
    for (int m = 0; m < M; ++m) {
        MHA2MLA_UNROLL
        for (int n = 0; n < 4; ++n) sums[m][n] = hn::Zero(kFloats);
    }
    std::int64_t i = 0;
    for (; i + kLanes <= k; i += kLanes) {
        if constexpr (kAhead == Ahead::yes) read_ahead(b + N * i, N * kLanes * static_cast<std::int64_t>(sizeof(B)));
        Vector columns[N];
        MHA2MLA_UNROLL
        for (int n = 0; n < N; ++n) columns[n] = load(kFloats, b + n * b_stride + i);
        MHA2MLA_UNROLL
        for (int m = 0; m < M; ++m) {
            const Vector row = load(kFloats, a + m * a_stride + i);
            MHA2MLA_UNROLL
            for (int n = 0; n < N; ++n) sums[m][n] = hn::MulAdd(row, columns[n], sums[m][n]);
        }
    }
    MHA2MLA_UNROLL
    for (int m = 0; m < M; ++m) {
        float totals[4];
        hn::StoreU(sum_of_four(kFloats, sums[m][0], sums[m][1], sums[m][2], sums[m][3]), hn::Full128<float>(), totals);
        MHA2MLA_UNROLL
        for (int n = 0; n < N; ++n) {
            float total = totals[n];
            for (std::int64_t j = i; j < k; ++j) total += a[m * a_stride + j] * value(b + n * b_stride + j);
            c[m * c_stride + n] = add ? c[m * c_stride + n] + total : total;
        }
    }
}

template <int M, Ahead kAhead, typename B>
HWY_INLINE void dots_of_rows(std::int64_t n, std::int64_t k, const float* a, std::int64_t a_stride, const B* b,
                             std::int64_t b_stride, bool add, float* c, std::int64_t c_stride) {
    std::int64_t j = 0;
    for (; j + 4 <= n; j += 4) {
        dots<M, 4, kAhead>(k, a, a_stride, b + j * b_stride, b_stride, add, c + j, c_stride);
    }
    switch (n - j) {
        case 3:
            return dots<M, 3, kAhead>(k, a, a_stride, b + j * b_stride, b_stride, add, c + j, c_stride);
        case 2:
            return dots<M, 2, kAhead>(k, a, a_stride, b + j * b_stride, b_stride, add, c + j, c_stride);
        case 1:
            return dots<M, 1, kAhead>(k, a, a_stride, b + j * b_stride, b_stride, add, c + j, c_stride);
        default:
            return;
    }
}

template <Ahead kAhead, typename B>
HWY_INLINE void abt_of(std::int64_t m, std::int64_t n, std::int64_t k, MatrixIn a, const B* b, std::int64_t b_stride,
                       bool add, MatrixOut c) {
    for (std::int64_t first = 0; first < n; first += kRowsInCache) {
        const std::int64_t rows = std::min(kRowsInCache, n - first);
        const B* part = b + first * b_stride;
        std::int64_t i = 0;
        for (; i + kDotRows <= m; i += kDotRows) {
            dots_of_rows<kDotRows, kAhead>(rows, k, a.data + i * a.stride, a.stride, part, b_stride, add,
                                           c.data + i * c.stride + first, c.stride);
        }
        for (; i < m; ++i) {
            dots_of_rows<1, kAhead>(rows, k, a.data + i * a.stride, a.stride, part, b_stride, add,
                                    c.data + i * c.stride + first, c.stride);
        }
    }
}

/// c[M, V vectors] += a[M, n] * b[n, V vectors] in registers.
template <int M, int V>
HWY_INLINE void sums(std::int64_t n, const Weights& a, const MatrixIn& b, const MatrixOut& c) {
    Vector totals[M][V];
    MHA2MLA_UNROLL
    for (int m = 0; m < M; ++m) {
        MHA2MLA_UNROLL
        for (int v = 0; v < V; ++v) totals[m][v] = load(kFloats, c.data + m * c.stride + v * kLanes);
    }
    const float* weights = a.data;
    const float* numbers = b.data;
    for (std::int64_t j = 0; j < n; ++j, weights += a.column_step, numbers += b.stride) {
        Vector row[V];
        MHA2MLA_UNROLL
        for (int v = 0; v < V; ++v) row[v] = load(kFloats, numbers + v * kLanes);
        MHA2MLA_UNROLL
        for (int m = 0; m < M; ++m) {
            const Vector weight = hn::Set(kFloats, weights[m * a.row_step]);
            MHA2MLA_UNROLL
            for (int v = 0; v < V; ++v) totals[m][v] = hn::MulAdd(row[v], weight, totals[m][v]);
        }
    }
    MHA2MLA_UNROLL
    for (int m = 0; m < M; ++m) {
        MHA2MLA_UNROLL
        for (int v = 0; v < V; ++v) hn::StoreU(totals[m][v], kFloats, c.data + m * c.stride + v * kLanes);
    }
}

/// c[M, k] += a[M, n] * b[n, k]
template <int M>
HWY_INLINE void sums_of_rows(std::int64_t k, std::int64_t n, const Weights& a, const MatrixIn& b, const MatrixOut& c) {
    constexpr int kWide = std::min(4, kSums / M);
    std::int64_t column = 0;
    for (; column + kWide * kLanes <= k; column += kWide * kLanes) {
        sums<M, kWide>(n, a, {b.data + column, b.stride}, {c.data + column, c.stride});
    }
    for (; column + kLanes <= k; column += kLanes) {
        sums<M, 1>(n, a, {b.data + column, b.stride}, {c.data + column, c.stride});
    }
    for (std::int64_t i = 0; i < M && column < k; ++i) {
        for (std::int64_t j = 0; j < n; ++j) {
            const float weight = a.data[i * a.row_step + j * a.column_step];
            for (std::int64_t l = column; l < k; ++l) {
                c.data[i * c.stride + l] += weight * b.data[j * b.stride + l];
            }
        }
    }
}

void ab(std::int64_t m, std::int64_t k, std::int64_t n, Weights a, MatrixIn b, MatrixOut c) {
    for (std::int64_t column = 0; column < k; column += kColumnsInCache) {
        const std::int64_t columns = std::min(kColumnsInCache, k - column);
        const auto part = [&](std::int64_t row) { return MatrixOut{c.data + row * c.stride + column, c.stride}; };
        const MatrixIn right{b.data + column, b.stride};
        std::int64_t i = 0;
        for (; i + 8 <= m; i += 8) {
            sums_of_rows<8>(columns, n, {a.data + i * a.row_step, a.row_step, a.column_step}, right, part(i));
        }
        for (; i + 4 <= m; i += 4) {
            sums_of_rows<4>(columns, n, {a.data + i * a.row_step, a.row_step, a.column_step}, right, part(i));
        }
        for (; i < m; ++i) {
            sums_of_rows<1>(columns, n, {a.data + i * a.row_step, a.row_step, a.column_step}, right, part(i));
        }
    }
}

void abt(std::int64_t m, std::int64_t n, std::int64_t k, MatrixIn a, MatrixIn b, bool add, MatrixOut c) {
    abt_of<Ahead::no>(m, n, k, a, b.data, b.stride, add, c);
}
template <typename B>
HWY_INLINE void abt_stored(std::int64_t m, std::int64_t n, std::int64_t k, MatrixIn a, const std::byte* b,
                           MatrixOut c) {
    const auto* numbers = reinterpret_cast<const B*>(b);
    if (k * static_cast<std::int64_t>(sizeof(B)) <= kReadAhead) {
        abt_of<Ahead::yes>(m, n, k, a, numbers, k, false, c);
    } else {
        abt_of<Ahead::no>(m, n, k, a, numbers, k, false, c);
    }
}
void abt_f32(std::int64_t m, std::int64_t n, std::int64_t k, MatrixIn a, const std::byte* b, MatrixOut c) {
    abt_stored<float>(m, n, k, a, b, c);
}
void abt_bf16(std::int64_t m, std::int64_t n, std::int64_t k, MatrixIn a, const std::byte* b, MatrixOut c) {
    abt_stored<std::uint16_t>(m, n, k, a, b, c);
}
void abt_f16(std::int64_t m, std::int64_t n, std::int64_t k, MatrixIn a, const std::byte* b, MatrixOut c) {
    abt_stored<hwy::float16_t>(m, n, k, a, b, c);
}
void product_ab(std::int64_t m, std::int64_t k, std::int64_t n, MatrixIn a, MatrixIn b, MatrixOut c) {
    ab(m, k, n, {a.data, a.stride, 1}, b, c);
}
void product_atb(std::int64_t m, std::int64_t k, std::int64_t n, MatrixIn a, MatrixIn b, MatrixOut c) {
    ab(m, k, n, {a.data, 1, a.stride}, b, c);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace mha2mla
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mha2mla {

HWY_EXPORT(abt);
HWY_EXPORT(abt_f32);
HWY_EXPORT(abt_bf16);
HWY_EXPORT(abt_f16);
HWY_EXPORT(product_ab);
HWY_EXPORT(product_atb);

void narrow_abt(std::int64_t m, std::int64_t n, std::int64_t k, MatrixIn a, MatrixIn b, bool add, MatrixOut c) {
    HWY_DYNAMIC_DISPATCH(abt)(m, n, k, a, b, add, c);
}
void narrow_abt_f32(std::int64_t m, std::int64_t n, std::int64_t k, MatrixIn a, const std::byte* b, MatrixOut c) {
    HWY_DYNAMIC_DISPATCH(abt_f32)(m, n, k, a, b, c);
}
void narrow_abt_bf16(std::int64_t m, std::int64_t n, std::int64_t k, MatrixIn a, const std::byte* b, MatrixOut c) {
    HWY_DYNAMIC_DISPATCH(abt_bf16)(m, n, k, a, b, c);
}
void narrow_abt_f16(std::int64_t m, std::int64_t n, std::int64_t k, MatrixIn a, const std::byte* b, MatrixOut c) {
    HWY_DYNAMIC_DISPATCH(abt_f16)(m, n, k, a, b, c);
}
void narrow_ab(std::int64_t m, std::int64_t k, std::int64_t n, MatrixIn a, MatrixIn b, MatrixOut c) {
    HWY_DYNAMIC_DISPATCH(product_ab)(m, k, n, a, b, c);
}
void narrow_atb(std::int64_t m, std::int64_t k, std::int64_t n, MatrixIn a, MatrixIn b, MatrixOut c) {
    HWY_DYNAMIC_DISPATCH(product_atb)(m, k, n, a, b, c);
}

}  // namespace mha2mla
#endif
