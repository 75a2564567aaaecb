#include "amx.hpp"

#include "mha2mla/error.hpp"
#include "mha2mla/machine.hpp"

#if defined(__x86_64__) && defined(__linux__)
#if !defined(__clang__)
// GCC 12 warns of its own _mm512_undefined_epi32() (bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <memory>
#include <new>

#define MHA2MLA_AMX __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,amx-tile,amx-bf16")))
#define MHA2MLA_AMX_INLINE MHA2MLA_AMX static inline __attribute__((always_inline))

namespace mha2mla {
namespace {

// A tile has 16 rows of 16 pairs of BF16. Of the left factor a row is a row of it, with neighbouring terms of the sum
// in pairs; of the right factor a row is such a pair of terms, of 16 columns.
constexpr std::int64_t kRows = 16;
constexpr std::int64_t kTerms = 32;  // of a sum, in a tile
constexpr std::int64_t kTileBytes = 1024;
constexpr std::int64_t kStepBytes = 2 * kTileBytes;  // of a panel: tiles of the high and of the low halves
constexpr std::int64_t kBlock = 2 * kRows;           // rows and columns of the result that are held in tiles
// What is packed at once: half a megabyte of the left factor and one and a half of the right one, which stay in the
// second cache.
constexpr std::int64_t kMostRows = 256, kMostColumns = 640, kMostTerms = 576;
constexpr std::int64_t kAhead = 64;  // floats of a row from what is packed to what is fetched

struct Tile {
    __m512i rows[kRows];
};

struct alignas(64) TileConfig {
    std::uint8_t palette = 1, start_row = 0;
    std::array<std::uint8_t, 14> reserved{};
    std::array<std::uint16_t, 16> row_bytes{64, 64, 64, 64, 64, 64, 64, 64};
    std::array<std::uint8_t, 16> rows{16, 16, 16, 16, 16, 16, 16, 16};
};
constexpr TileConfig kTileConfig;

/// 16 × 16 pairs, transposed.
MHA2MLA_AMX_INLINE void transpose(Tile& tile) {
    __m512i* const t = tile.rows;
    __m512i s[kRows];
    for (int i = 0; i < 16; i += 2) {
        s[i] = _mm512_unpacklo_epi32(t[i], t[i + 1]);
        s[i + 1] = _mm512_unpackhi_epi32(t[i], t[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        t[i] = _mm512_unpacklo_epi64(s[i], s[i + 2]);
        t[i + 1] = _mm512_unpackhi_epi64(s[i], s[i + 2]);
        t[i + 2] = _mm512_unpacklo_epi64(s[i + 1], s[i + 3]);
        t[i + 3] = _mm512_unpackhi_epi64(s[i + 1], s[i + 3]);
    }
    // t[4g + j] now has, in its 128-bit lane l, column 4l + j of rows 4g to 4g + 3.
    for (int j = 0; j < 4; ++j) {
        const __m512i low01 = _mm512_shuffle_i32x4(t[j], t[4 + j], 0x44);
        const __m512i low23 = _mm512_shuffle_i32x4(t[8 + j], t[12 + j], 0x44);
        const __m512i high01 = _mm512_shuffle_i32x4(t[j], t[4 + j], 0xEE);
        const __m512i high23 = _mm512_shuffle_i32x4(t[8 + j], t[12 + j], 0xEE);
        s[j] = _mm512_shuffle_i32x4(low01, low23, 0x88);
        s[4 + j] = _mm512_shuffle_i32x4(low01, low23, 0xDD);
        s[8 + j] = _mm512_shuffle_i32x4(high01, high23, 0x88);
        s[12 + j] = _mm512_shuffle_i32x4(high01, high23, 0xDD);
    }
    std::copy_n(s, kRows, t);
}

MHA2MLA_AMX_INLINE __mmask16 first_lanes(std::int64_t count) {
    return static_cast<__mmask16>(count >= 16 ? 0xFFFFU
                                              : (1U << static_cast<unsigned>(std::max<std::int64_t>(count, 0))) - 1U);
}

MHA2MLA_AMX_INLINE __m512 as_floats(__m256i halves) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
}

/// Two vectors of floats as BF16, and what they are more than that.
struct Halves {
    __m512i high, low;
};
MHA2MLA_AMX_INLINE Halves split(__m512 first, __m512 second) {
    const auto high = (__m512i)_mm512_cvtne2ps_pbh(second, first);
    const __m512 rest0 = _mm512_sub_ps(first, as_floats(_mm512_castsi512_si256(high)));
    const __m512 rest1 = _mm512_sub_ps(second, as_floats(_mm512_extracti64x4_epi64(high, 1)));
    return {high, (__m512i)_mm512_cvtne2ps_pbh(rest1, rest0)};
}

/// The tiles of 16 rows from `row` and 32 terms from `term` on, zeros beyond the factor's end.
/// @param rows the factor's; its terms are neighbours in memory.
MHA2MLA_AMX_INLINE void tiles_of_rows(const float* data, std::int64_t stride, std::int64_t rows, std::int64_t terms,
                                      __m512 alpha, Tile& high, Tile& low) {
    const __mmask16 mask0 = first_lanes(terms), mask1 = first_lanes(terms - 16);
    for (std::int64_t r = 0; r < kRows; ++r) {
        Halves halves{_mm512_setzero_si512(), _mm512_setzero_si512()};
        if (r < rows) {
            const float* from = data + r * stride;
            _mm_prefetch(from + kAhead, _MM_HINT_T0);
            _mm_prefetch(from + kAhead + 16, _MM_HINT_T0);
            halves =
                split(_mm512_mul_ps(alpha, _mm512_maskz_loadu_ps(mask0, from)),
                      _mm512_mul_ps(alpha, mask1 == 0 ? _mm512_setzero_ps() : _mm512_maskz_loadu_ps(mask1, from + 16)));
        }
        high.rows[r] = halves.high;
        low.rows[r] = halves.low;
    }
}

/// The same, transposed, of a factor whose rows are neighbours in memory.
MHA2MLA_AMX_INLINE void tiles_of_columns(const float* data, std::int64_t stride, std::int64_t rows, std::int64_t terms,
                                         __m512 alpha, Tile& high, Tile& low) {
    // Terms 2p and 2p + 1 of a row become a pair.
    const __m512i pairs = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                                           21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    const __mmask16 mask = first_lanes(rows);
    for (std::int64_t p = 0; p < kRows; ++p) {
        const auto row = [&](std::int64_t term) MHA2MLA_AMX {
            return term < terms ? _mm512_mul_ps(alpha, _mm512_maskz_loadu_ps(mask, data + term * stride))
                                : _mm512_setzero_ps();
        };
        const Halves halves = split(row(2 * p), row(2 * p + 1));
        high.rows[p] = _mm512_permutexvar_epi16(pairs, halves.high);
        low.rows[p] = _mm512_permutexvar_epi16(pairs, halves.low);
    }
}

/// Panels of 16 rows of a left factor, or columns of a right one: for each 32 terms the tile of the high halves, then
/// that of the low ones.
/// @param left which of them. @param first row (left) or column (right). @param term the first one.
/// @return whether all low halves are 0.
MHA2MLA_AMX bool pack(const Factor& factor, bool left, std::int64_t first, std::int64_t first_term, std::int64_t rows,
                      std::int64_t terms, float alpha, std::byte* to) {
    const bool terms_are_neighbours = left != factor.transposed;
    const std::int64_t stride = factor.stored.stride;
    const float* data =
        factor.stored.data + (terms_are_neighbours ? first * stride + first_term : first_term * stride + first);
    __m512i any = _mm512_setzero_si512();
    const __m512 scale = _mm512_set1_ps(alpha);
    for (std::int64_t row = 0; row < rows; row += kRows) {
        for (std::int64_t term = 0; term < terms; term += kTerms, to += kStepBytes) {
            Tile high, low;
            const std::int64_t across = std::min(kRows, rows - row), along = std::min(kTerms, terms - term);
            if (terms_are_neighbours) {
                tiles_of_rows(data + row * stride + term, stride, across, along, scale, high, low);
            } else {
                tiles_of_columns(data + term * stride + row, stride, across, along, scale, high, low);
            }
            for (const __m512i& of : low.rows) any = _mm512_or_si512(any, of);
            if (left != terms_are_neighbours) {
                transpose(high);
                transpose(low);
            }
            for (std::int64_t r = 0; r < kRows; ++r) {
                _mm512_store_si512(to + 64 * r, high.rows[r]);
                _mm512_store_si512(to + kTileBytes + 64 * r, low.rows[r]);
            }
        }
    }
    // -0 is a zero too, which a negative number that is a BF16 leaves.
    return _mm512_test_epi32_mask(any, _mm512_set1_epi32(0x7FFF7FFF)) == 0;
}

/// c[32, 32] of two panels of each factor, added to what c has. @param panel bytes from one panel to the next.
template <bool kExact>
MHA2MLA_AMX void multiply_block(std::int64_t steps, const std::byte* a, const std::byte* b, std::int64_t panel,
                                bool add, MatrixOut c) {
    const auto stride = static_cast<std::size_t>(c.stride) * sizeof(float);
    float* const lower = c.data + kRows * c.stride;
    if (add) {
        _tile_loadd(0, c.data, stride);
        _tile_loadd(1, c.data + kRows, stride);
        _tile_loadd(2, lower, stride);
        _tile_loadd(3, lower + kRows, stride);
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
    const auto products = []() MHA2MLA_AMX {
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    };
    for (std::int64_t step = 0; step < steps; ++step, a += kStepBytes, b += kStepBytes) {
        _tile_loadd(6, b, 64);
        _tile_loadd(7, b + panel, 64);
        _tile_loadd(4, a + kTileBytes, 64);
        _tile_loadd(5, a + panel + kTileBytes, 64);
        products();
        _tile_loadd(4, a, 64);
        _tile_loadd(5, a + panel, 64);
        products();
        if constexpr (!kExact) {
            _tile_loadd(6, b + kTileBytes, 64);
            _tile_loadd(7, b + panel + kTileBytes, 64);
            products();
        }
    }
    _tile_stored(0, c.data, stride);
    _tile_stored(1, c.data + kRows, stride);
    _tile_stored(2, lower, stride);
    _tile_stored(3, lower + kRows, stride);
}

/// The same of which only `rows` × `columns` belong to c.
template <bool kExact>
MHA2MLA_AMX void multiply_edge(std::int64_t rows, std::int64_t columns, std::int64_t steps, const std::byte* a,
                               const std::byte* b, std::int64_t panel, bool add, MatrixOut c) {
    alignas(64) std::array<float, kBlock * kBlock> room;
    multiply_block<kExact>(steps, a, b, panel, false, {room.data(), kBlock});
    for (std::int64_t i = 0; i < rows; ++i) {
        const float* from = room.data() + i * kBlock;
        float* to = c.data + i * c.stride;
        for (std::int64_t j = 0; j < columns; ++j) to[j] = add ? to[j] + from[j] : from[j];
    }
}

template <bool kExact>
MHA2MLA_AMX void multiply_packed(std::int64_t m, std::int64_t n, std::int64_t terms, const std::byte* a,
                                 const std::byte* b, bool add, MatrixOut c) {
    const std::int64_t steps = (terms + kTerms - 1) / kTerms;
    const std::int64_t panel = steps * kStepBytes;
    for (std::int64_t i = 0; i < m; i += kBlock) {
        for (std::int64_t j = 0; j < n; j += kBlock) {
            const std::byte* const left = a + i / kRows * panel;
            const std::byte* const right = b + j / kRows * panel;
            const MatrixOut to{c.data + i * c.stride + j, c.stride};
            if (m - i >= kBlock && n - j >= kBlock) {
                multiply_block<kExact>(steps, left, right, panel, add, to);
            } else {
                multiply_edge<kExact>(std::min(kBlock, m - i), std::min(kBlock, n - j), steps, left, right, panel, add,
                                      to);
            }
        }
    }
}

/// The largest parts of `size` that are alike, at most `most` each and whole blocks.
std::int64_t part_of(std::int64_t size, std::int64_t most) {
    const std::int64_t parts = (size + most - 1) / most;
    return ((size + parts - 1) / parts + kBlock - 1) / kBlock * kBlock;
}

struct Free {
    void operator()(std::byte* bytes) const { std::free(bytes); }  // NOLINT(*-no-malloc): what aligned_alloc gave
};
using Room = std::unique_ptr<std::byte, Free>;

/// Room for panels, whose number is even because blocks have two of each factor.
Room room_for(std::int64_t rows, std::int64_t terms) {
    const std::int64_t panels = (rows + kBlock - 1) / kBlock * 2;
    const std::int64_t bytes = panels * ((terms + kTerms - 1) / kTerms) * kStepBytes;
    Room room(static_cast<std::byte*>(std::aligned_alloc(64, static_cast<std::size_t>(bytes))));
    if (!room) throw std::bad_alloc();
    return room;
}

}  // namespace

MHA2MLA_AMX void amx_gemm(std::int64_t m, std::int64_t n, std::int64_t k, float alpha, const Factor& a, const Factor& b,
                          bool add, MatrixOut c) {
    if (m == 0 || n == 0 || k == 0) return;
    const std::int64_t rows = part_of(m, kMostRows), columns = part_of(n, kMostColumns), terms = part_of(k, kMostTerms);
    const Room left = room_for(rows, terms), right = room_for(columns, terms);
    _tile_loadconfig(&kTileConfig);
    for (std::int64_t q = 0; q < k; q += terms) {
        const std::int64_t depth = std::min(terms, k - q);
        for (std::int64_t j = 0; j < n; j += columns) {
            const std::int64_t width = std::min(columns, n - j);
            const bool exact = pack(b, false, j, q, width, depth, 1, right.get());
            for (std::int64_t i = 0; i < m; i += rows) {
                const std::int64_t height = std::min(rows, m - i);
                (void)pack(a, true, i, q, height, depth, alpha, left.get());
                const MatrixOut to{c.data + i * c.stride + j, c.stride};
                const auto multiply = exact ? multiply_packed<true> : multiply_packed<false>;
                multiply(height, width, depth, left.get(), right.get(), add || q > 0, to);
            }
        }
    }
    _tile_release();
}

}  // namespace mha2mla
#else
namespace mha2mla {

void amx_gemm(std::int64_t, std::int64_t, std::int64_t, float, const Factor&, const Factor&, bool, MatrixOut) {
    throw Error(ErrorCode::unsupported, "this processor has no AMX");
}

}  // namespace mha2mla
#endif

namespace mha2mla {

bool amx_pays(std::int64_t m, std::int64_t n, std::int64_t k) {
    constexpr std::int64_t kLeast = 32, kLeastProducts = std::int64_t{1} << 17;
    return m >= kLeast && n >= kLeast && k >= kLeast && m * n * k >= kLeastProducts && has_amx();
}

}  // namespace mha2mla
