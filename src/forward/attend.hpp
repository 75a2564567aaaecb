#pragma once
/// The loops of attention over a tile of a KV cache, some tens of tokens that lie in the processor's own cache.
///
/// Logits and weights lie token by token, [tokens, rows], where a row is a query of a head. So the softmax and the
/// products work on rows side by side, and nothing but short dot products is summed across a vector. Compiled for more
/// than one instruction set, as elementwise.hpp.

#include <cstddef>
#include <cstdint>

#include "../linalg/gemm.hpp"

namespace mha2mla {

/// Rows of a panel: queries that are multiplied with a token side by side.
constexpr std::int64_t kPanelRows = 16;
[[nodiscard]] constexpr std::int64_t panels_of(std::int64_t rows) { return (rows + kPanelRows - 1) / kPanelRows; }

/// Numbers of a tile: token t's at data + t * stride bytes, in the arithmetic's type, of any alignment.
struct TileIn {
    const std::byte* data;
    std::int64_t stride;
};

/// The loops for one type of numbers. Sums are float32 in both.
struct TileArithmetic {
    std::int64_t number_bytes;
    /// Queries [rows, dim] as they are, to[rows, dim], in the arithmetic's type.
    void (*convert)(const float* q, std::int64_t count, std::byte* to);
    /// Queries [rows, dim] become rows first_row, ... of a panel [dim, 16] of zeros. dim is even.
    void (*pack)(std::int64_t rows, std::int64_t dim, MatrixIn q, std::int64_t first_row, std::byte* panel);
    /// logits[t, r] += tile[t]·q[r] for all rows of panels [dim, 16] that are `panel_bytes` apart.
    void (*panel_logits)(std::int64_t tokens, std::int64_t panels, std::int64_t dim, TileIn tile, const std::byte* q,
                         std::int64_t panel_bytes, MatrixOut logits);
    /// The same for queries [rows, dim] as convert() leaves them.
    void (*row_logits)(std::int64_t tokens, std::int64_t rows, std::int64_t dim, TileIn tile, const std::byte* q,
                       MatrixOut logits);
    /// A piece of each column's softmax (Milakov and Gimelshein, 2018): maximum[r] takes in the column's own, its
    /// logits become exp(logit - maximum), sum[r] is brought to the new maximum and takes in these, and factor[r] is
    /// exp(maximum before - maximum now). A logit of -infinity takes no part.
    /// @param rows a multiple of 16. @param maximum the lowest float before the first piece.
    /// @return whether a factor is not 1.
    bool (*softmax)(std::int64_t tokens, std::int64_t rows, MatrixOut logits, float* maximum, float* sum,
                    float* factor);
    /// What weigh() reads of a tile: `width` numbers of each token.
    /// @return `scratch`, [tokens, width] in the arithmetic's order, or the tile itself.
    TileIn (*prepare_values)(std::int64_t tokens, std::int64_t width, TileIn tile, std::byte* scratch);
    /// out[r] += Σ_t weights[t, r] * values[t, column .. column + dim), with weights as softmax() leaves them.
    void (*weigh)(std::int64_t tokens, std::int64_t rows, std::int64_t dim, MatrixIn weights, TileIn values,
                  std::int64_t column, MatrixOut out);
};

/// For any processor.
[[nodiscard]] const TileArithmetic& float_tiles();
/// Numbers, queries and weights as BF16, two products at a time (AVX512_BF16), or null where the processor lacks that.
/// What rounding queries and weights adds to a result is no more than what rounding the cache did (tests/unit).
[[nodiscard]] const TileArithmetic* bf16_tiles();

}  // namespace mha2mla
