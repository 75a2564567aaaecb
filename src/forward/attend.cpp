#include "attend.hpp"

#include <algorithm>

#include "../linalg/instruction_set.hpp"
#include "../linalg/narrow.hpp"
#include "../linalg/vectors.hpp"

namespace mha2mla {
namespace {

const float* floats(const std::byte* data) { return reinterpret_cast<const float*>(data); }
MatrixIn floats(const TileIn& tile) {
    return {floats(tile.data), tile.stride / static_cast<std::int64_t>(sizeof(float))};
}

/// The loops for vectors of kBytes bytes.
template <int kBytes>
struct TileLoops : VectorLoops<kBytes> {
    using Base = VectorLoops<kBytes>;
    using Base::kLanes;
    using typename Base::Floats;
    static constexpr int kVectors = static_cast<int>(kPanelRows / kLanes);  // of a panel
    static constexpr int kTokens = kBytes == 64 ? 8 : 8 / kVectors;         // whose sums are held in registers

    /// logits[T, P panels] in registers.
    template <int T, int P>
    MHA2MLA_INLINE void block(std::int64_t dim, const MatrixIn& tile, const float* q, std::int64_t panel,
                              const MatrixOut& c) {
        Floats sums[T][P * kVectors];
        MHA2MLA_UNROLL
        for (int t = 0; t < T; ++t) {
            MHA2MLA_UNROLL
            for (int v = 0; v < P * kVectors; ++v) Base::load(c.data + t * c.stride + v * kLanes, sums[t][v]);
        }
        for (std::int64_t d = 0; d < dim; ++d) {
            Floats column[P * kVectors];
            MHA2MLA_UNROLL
            for (int v = 0; v < P * kVectors; ++v) {
                Base::load(q + v / kVectors * panel + d * kPanelRows + v % kVectors * kLanes, column[v]);
            }
            MHA2MLA_UNROLL
            for (int t = 0; t < T; ++t) {
                const float number = tile.data[t * tile.stride + d];
                MHA2MLA_UNROLL
                for (int v = 0; v < P * kVectors; ++v) sums[t][v] = sums[t][v] + column[v] * number;
            }
        }
        MHA2MLA_UNROLL
        for (int t = 0; t < T; ++t) {
            MHA2MLA_UNROLL
            for (int v = 0; v < P * kVectors; ++v) Base::store(sums[t][v], c.data + t * c.stride + v * kLanes);
        }
    }

    template <int P>
    MHA2MLA_INLINE void panels_of_tokens(std::int64_t tokens, std::int64_t dim, const MatrixIn& tile, const float* q,
                                         std::int64_t panel, const MatrixOut& c) {
        std::int64_t t = 0;
        for (; t + kTokens <= tokens; t += kTokens) {
            block<kTokens, P>(dim, {tile.data + t * tile.stride, tile.stride}, q, panel,
                              {c.data + t * c.stride, c.stride});
        }
        for (; t < tokens; ++t) {
            block<1, P>(dim, {tile.data + t * tile.stride, tile.stride}, q, panel, {c.data + t * c.stride, c.stride});
        }
    }

    MHA2MLA_INLINE void panel_logits(std::int64_t tokens, std::int64_t panels, std::int64_t dim, MatrixIn tile,
                                     const float* q, std::int64_t panel, MatrixOut c) {
        std::int64_t p = 0;
        if constexpr (kBytes == 64) {
            for (; p + 2 <= panels; p += 2) {
                panels_of_tokens<2>(tokens, dim, tile, q + p * panel, panel, {c.data + p * kPanelRows, c.stride});
            }
        }
        for (; p < panels; ++p) {
            panels_of_tokens<1>(tokens, dim, tile, q + p * panel, panel, {c.data + p * kPanelRows, c.stride});
        }
    }

    MHA2MLA_INLINE bool softmax(std::int64_t tokens, std::int64_t rows, MatrixOut logits, float* maximum, float* sum,
                                float* factor) {
        bool changed = false;
        for (std::int64_t row = 0; row < rows; row += kLanes) {
            Floats before, top, total, v;
            Base::load(maximum + row, before);
            top = before;
            for (std::int64_t t = 0; t < tokens; ++t) {
                Base::load(logits.data + t * logits.stride + row, v);
                top = v > top ? v : top;
            }
            v = before - top;
            Base::exp(v);
            Base::load(sum + row, total);
            total = total * v;
            Base::store(top, maximum + row);
            Base::store(v, factor + row);
            for (std::int64_t i = 0; i < kLanes; ++i) changed = changed || factor[row + i] != 1.0F;
            for (std::int64_t t = 0; t < tokens; ++t) {
                float* at = logits.data + t * logits.stride + row;
                Base::load(at, v);
                v = v - top;
                Base::exp(v);
                total = total + v;
                Base::store(v, at);
            }
            Base::store(total, sum + row);
        }
        return changed;
    }
};

/// One row per instruction set.
struct Kernels {
    void (*panel_logits)(std::int64_t, std::int64_t, std::int64_t, MatrixIn, const float*, std::int64_t, MatrixOut);
    bool (*softmax)(std::int64_t, std::int64_t, MatrixOut, float*, float*, float*);
};

#define MHA2MLA_TILES(name, bytes, target)                                                                           \
    target void name##_panel_logits(std::int64_t tokens, std::int64_t panels, std::int64_t dim, MatrixIn tile,       \
                                    const float* q, std::int64_t panel, MatrixOut c) {                               \
        TileLoops<bytes>::panel_logits(tokens, panels, dim, tile, q, panel, c);                                      \
    }                                                                                                                \
    target bool name##_softmax(std::int64_t tokens, std::int64_t rows, MatrixOut logits, float* maximum, float* sum, \
                               float* factor) {                                                                      \
        return TileLoops<bytes>::softmax(tokens, rows, logits, maximum, sum, factor);                                \
    }                                                                                                                \
    constexpr Kernels name = {name##_panel_logits, name##_softmax}

MHA2MLA_TILES(kBaseline, 16, );
#if defined(__x86_64__)
MHA2MLA_TILES(kAvx2, 32, MHA2MLA_AVX2);
MHA2MLA_TILES(kAvx512, 64, MHA2MLA_AVX512);
const Kernels& best() { return best_of(kBaseline, kAvx2, kAvx512); }
#else
const Kernels& best() { return kBaseline; }
#endif

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
    best().panel_logits(tokens, panels, dim, floats(tile), floats(q),
                        panel_bytes / static_cast<std::int64_t>(sizeof(float)), logits);
}

void row_logits(std::int64_t tokens, std::int64_t rows, std::int64_t dim, TileIn tile, const std::byte* q,
                MatrixOut logits) {
    narrow_abt(tokens, rows, dim, floats(tile), {floats(q), dim}, true, logits);
}

bool softmax(std::int64_t tokens, std::int64_t rows, MatrixOut logits, float* maximum, float* sum, float* factor) {
    return best().softmax(tokens, rows, logits, maximum, sum, factor);
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
