#include "attend.hpp"

#include <algorithm>

#include "../linalg/narrow.hpp"
#include "../linalg/targets.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "forward/attend.cpp"
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
constexpr int kVectors = static_cast<int>(kPanelRows / kLanes);  // of a panel
constexpr int kTokens = kLanes == 16 ? 8 : 8 / kVectors;         // whose sums are held in registers

/// logits[T, P panels] in registers.
template <int T, int P>
HWY_INLINE void block(std::int64_t dim, const MatrixIn& tile, const float* q, std::int64_t panel, const MatrixOut& c) {
    Vector sums[T][P * kVectors];
    MHA2MLA_UNROLL
    for (int t = 0; t < T; ++t) {
        MHA2MLA_UNROLL
        for (int v = 0; v < P * kVectors; ++v) sums[t][v] = load(kFloats, c.data + t * c.stride + v * kLanes);
    }
    for (std::int64_t d = 0; d < dim; ++d) {
        Vector column[P * kVectors];
        MHA2MLA_UNROLL
        for (int v = 0; v < P * kVectors; ++v) {
            column[v] = load(kFloats, q + v / kVectors * panel + d * kPanelRows + v % kVectors * kLanes);
        }
        MHA2MLA_UNROLL
        for (int t = 0; t < T; ++t) {
            const Vector number = hn::Set(kFloats, tile.data[t * tile.stride + d]);
            MHA2MLA_UNROLL
            for (int v = 0; v < P * kVectors; ++v) sums[t][v] = hn::MulAdd(column[v], number, sums[t][v]);
        }
    }
    MHA2MLA_UNROLL
    for (int t = 0; t < T; ++t) {
        MHA2MLA_UNROLL
        for (int v = 0; v < P * kVectors; ++v) hn::StoreU(sums[t][v], kFloats, c.data + t * c.stride + v * kLanes);
    }
}

template <int P>
HWY_INLINE void panels_of_tokens(std::int64_t tokens, std::int64_t dim, const MatrixIn& tile, const float* q,
                                 std::int64_t panel, const MatrixOut& c) {
    std::int64_t t = 0;
    for (; t + kTokens <= tokens; t += kTokens) {
        block<kTokens, P>(dim, {tile.data + t * tile.stride, tile.stride}, q, panel, {c.data + t * c.stride, c.stride});
    }
    for (; t < tokens; ++t) {
        block<1, P>(dim, {tile.data + t * tile.stride, tile.stride}, q, panel, {c.data + t * c.stride, c.stride});
    }
}

void panel_logits_of(std::int64_t tokens, std::int64_t panels, std::int64_t dim, MatrixIn tile, const float* q,
                     std::int64_t panel, MatrixOut c) {
    std::int64_t p = 0;
    if constexpr (kLanes == 16) {
        for (; p + 2 <= panels; p += 2) {
            panels_of_tokens<2>(tokens, dim, tile, q + p * panel, panel, {c.data + p * kPanelRows, c.stride});
        }
    }
    for (; p < panels; ++p) {
        panels_of_tokens<1>(tokens, dim, tile, q + p * panel, panel, {c.data + p * kPanelRows, c.stride});
    }
}

bool softmax_of(std::int64_t tokens, std::int64_t rows, MatrixOut logits, float* maximum, float* sum, float* factor) {
    bool changed = false;
    for (std::int64_t row = 0; row < rows; row += kLanes) {
        const Vector before = load(kFloats, maximum + row);
        Vector top = before;
        for (std::int64_t t = 0; t < tokens; ++t) {
            const Vector v = load(kFloats, logits.data + t * logits.stride + row);
            top = hn::Max(v, top);
        }
        const Vector kept = exp(kFloats, hn::Sub(before, top));
        Vector total = hn::Mul(load(kFloats, sum + row), kept);
        hn::StoreU(top, kFloats, maximum + row);
        hn::StoreU(kept, kFloats, factor + row);
        changed = changed || !hn::AllTrue(kFloats, hn::Eq(kept, hn::Set(kFloats, 1.0F)));
        for (std::int64_t t = 0; t < tokens; ++t) {
            float* at = logits.data + t * logits.stride + row;
            const Vector v = exp(kFloats, hn::Sub(load(kFloats, at), top));
            total = hn::Add(total, v);
            hn::StoreU(v, kFloats, at);
        }
        hn::StoreU(total, kFloats, sum + row);
    }
    return changed;
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace mha2mla
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mha2mla {

HWY_EXPORT(panel_logits_of);
HWY_EXPORT(softmax_of);

namespace {

const float* floats(const std::byte* data) { return reinterpret_cast<const float*>(data); }
MatrixIn floats(const TileIn& tile) {
    return {floats(tile.data), tile.stride / static_cast<std::int64_t>(sizeof(float))};
}

void convert(const float* q, std::int64_t count, std::byte* to) {
    std::memcpy(to, q, static_cast<std::size_t>(count) * sizeof(float));
}

void pack(std::int64_t rows, std::int64_t dim, MatrixIn q, std::int64_t first_row, std::byte* panel) {
    auto* to = reinterpret_cast<float*>(panel) + first_row;
    for (std::int64_t row = 0; row < rows; ++row) {
        for (std::int64_t d = 0; d < dim; ++d) to[d * kPanelRows + row] = q.data[row * q.stride + d];
    }
}

void panel_logits(std::int64_t tokens, std::int64_t panels, std::int64_t dim, TileIn tile, const std::byte* q,
                  std::int64_t panel_bytes, MatrixOut logits) {
    HWY_DYNAMIC_DISPATCH(panel_logits_of)
    (tokens, panels, dim, floats(tile), floats(q), panel_bytes / static_cast<std::int64_t>(sizeof(float)), logits);
}

void row_logits(std::int64_t tokens, std::int64_t rows, std::int64_t dim, TileIn tile, const std::byte* q,
                MatrixOut logits) {
    narrow_abt(tokens, rows, dim, floats(tile), {floats(q), dim}, true, logits);
}

bool softmax(std::int64_t tokens, std::int64_t rows, MatrixOut logits, float* maximum, float* sum, float* factor) {
    return HWY_DYNAMIC_DISPATCH(softmax_of)(tokens, rows, logits, maximum, sum, factor);
}

TileIn prepare_values(std::int64_t, std::int64_t, TileIn tile, std::byte*) { return tile; }

void weigh(std::int64_t tokens, std::int64_t rows, std::int64_t dim, MatrixIn weights, TileIn values,
           std::int64_t column, MatrixOut out) {
    const MatrixIn numbers = floats(values);
    narrow_atb(rows, dim, tokens, weights, {numbers.data + column, numbers.stride}, out);
}

constexpr TileArithmetic kFloatTiles = {sizeof(float), convert, pack,           panel_logits,
                                        row_logits,    softmax, prepare_values, weigh};

}  // namespace

const TileArithmetic& float_tiles() { return kFloatTiles; }

}  // namespace mha2mla
#endif
