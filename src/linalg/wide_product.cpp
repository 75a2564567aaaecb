#include "wide_product.hpp"

#include <algorithm>
#include <cstring>
#include <vector>

#include "instruction_set.hpp"
#include "vectors.hpp"

#if defined(__x86_64__)

namespace mha2mla {
namespace {

using Floats = VectorOf<float, 64>;
using FloatsInMemory = float __attribute__((vector_size(64), aligned(4), may_alias));

constexpr std::int64_t kLanes = 16;
constexpr std::int64_t kTileRows = 12;    // of the result, in registers
constexpr std::int64_t kTileVectors = 2;  // of its columns
constexpr std::int64_t kTileColumns = kTileVectors * kLanes;
constexpr std::int64_t kDepth = 256;                   // of the sums in one pass over the result
constexpr std::int64_t kLeftStride = kDepth + kLanes;  // of packed rows: no multiple of a page
constexpr std::int64_t kLeftRows = 16 * kTileRows;     // in the level-2 cache
constexpr std::int64_t kRightColumns = 512;

/// Panels of the calling thread, kept between products.
struct Panels {
    std::vector<float> left;   // [kLeftRows, kLeftStride]
    std::vector<float> right;  // [kRightColumns / kTileColumns, kDepth, kTileColumns]
};
Panels& panels() {
    thread_local Panels own{std::vector<float>(kLeftRows * kLeftStride), std::vector<float>(kRightColumns * kDepth)};
    return own;
}

/// to[column, row] = from[row, column] for 16 x 16 numbers: four times all vectors are interleaved with those eight on.
MHA2MLA_AVX512 MHA2MLA_INLINE void transpose_block(const float* from, std::int64_t from_stride, float* to,
                                                   std::int64_t to_stride) {
    Floats rows[kLanes], next[kLanes];
    MHA2MLA_UNROLL
    for (int i = 0; i < kLanes; ++i) std::memcpy(&rows[i], from + i * from_stride, sizeof(Floats));
    MHA2MLA_UNROLL
    for (int round = 0; round < 4; ++round) {
        MHA2MLA_UNROLL
        for (int i = 0; i < kLanes / 2; ++i) {
            next[2 * i] =
                __builtin_shufflevector(rows[i], rows[i + 8], 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
            next[2 * i + 1] = __builtin_shufflevector(rows[i], rows[i + 8], 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13,
                                                      29, 14, 30, 15, 31);
        }
        MHA2MLA_UNROLL
        for (int i = 0; i < kLanes; ++i) rows[i] = next[i];
    }
    MHA2MLA_UNROLL
    for (int i = 0; i < kLanes; ++i) std::memcpy(to + i * to_stride, &rows[i], sizeof(Floats));
}

MHA2MLA_AVX512 MHA2MLA_INLINE void transpose(std::int64_t rows, std::int64_t columns, const float* from,
                                             std::int64_t from_stride, float* to, std::int64_t to_stride) {
    for (std::int64_t row = 0; row < rows; row += kLanes) {
        for (std::int64_t column = 0; column < columns; column += kLanes) {
            const float* block = from + row * from_stride + column;
            float* out = to + column * to_stride + row;
            if (row + kLanes <= rows && column + kLanes <= columns) {
                transpose_block(block, from_stride, out, to_stride);
                continue;
            }
            for (std::int64_t i = 0; i < std::min(kLanes, rows - row); ++i) {
                for (std::int64_t j = 0; j < std::min(kLanes, columns - column); ++j) {
                    out[j * to_stride + i] = block[i * from_stride + j];
                }
            }
        }
    }
}

/// Rows of the left operand one after the other; a last tile that is not full gets zeros.
MHA2MLA_AVX512 MHA2MLA_INLINE void pack_left(std::int64_t rows, std::int64_t depth, Operand a, float* to) {
    if (a.column_stride == 1) {
        for (std::int64_t i = 0; i < rows; ++i) std::copy_n(a.data + i * a.row_stride, depth, to + i * kLeftStride);
    } else {
        transpose(depth, rows, a.data, a.column_stride, to, kLeftStride);
    }
    for (std::int64_t i = rows; i % kTileRows != 0; ++i) std::fill_n(to + i * kLeftStride, depth, 0.0F);
}

/// The right operand in strips of kTileColumns columns, zeros beyond the last.
MHA2MLA_AVX512 MHA2MLA_INLINE void pack_right(std::int64_t depth, std::int64_t columns, Operand b, float* to) {
    for (std::int64_t first = 0; first < columns; first += kTileColumns, to += depth * kTileColumns) {
        const std::int64_t count = std::min(kTileColumns, columns - first);
        if (count < kTileColumns) std::fill_n(to, depth * kTileColumns, 0.0F);
        if (b.column_stride == 1) {
            const float* from = b.data + first;
            for (std::int64_t i = 0; count == kTileColumns && i < depth; ++i) {
                Floats vectors[kTileVectors];
                std::memcpy(vectors, from + i * b.row_stride, sizeof vectors);
                std::memcpy(to + i * kTileColumns, vectors, sizeof vectors);
            }
            for (std::int64_t i = 0; count < kTileColumns && i < depth; ++i) {
                std::copy_n(from + i * b.row_stride, count, to + i * kTileColumns);
            }
        } else {
            transpose(count, depth, b.data + first * b.column_stride, b.column_stride, to, kTileColumns);
        }
    }
}

/// A tile of the result, apart so that all registers are its own. @param a packed rows. @param b packed strip.
MHA2MLA_AVX512 __attribute__((noinline)) void multiply_tile(std::int64_t depth, const float* a, const float* b,
                                                            float alpha, float beta, float* c, std::int64_t c_stride) {
    Floats sums[kTileRows][kTileVectors] = {};
    for (std::int64_t i = 0; i < depth; ++i) {
        const Floats first = *reinterpret_cast<const FloatsInMemory*>(b + i * kTileColumns);
        const Floats second = *reinterpret_cast<const FloatsInMemory*>(b + i * kTileColumns + kLanes);
        MHA2MLA_UNROLL
        for (int row = 0; row < kTileRows; ++row) {
            const float left = a[row * kLeftStride + i];
            sums[row][0] = sums[row][0] + first * left;
            sums[row][1] = sums[row][1] + second * left;
        }
    }
    MHA2MLA_UNROLL
    for (int row = 0; row < kTileRows; ++row) {
        MHA2MLA_UNROLL
        for (int v = 0; v < kTileVectors; ++v) {
            float* to = c + row * c_stride + v * kLanes;
            Floats result = sums[row][v] * alpha;
            if (beta != 0.0F) {
                Floats before;
                std::memcpy(&before, to, sizeof(Floats));
                result = result + before * beta;
            }
            std::memcpy(to, &result, sizeof(Floats));
        }
    }
}

/// A tile that reaches over the edge of the result.
MHA2MLA_AVX512 MHA2MLA_INLINE void multiply_edge(std::int64_t rows, std::int64_t columns, std::int64_t depth,
                                                 const float* a, const float* b, float alpha, float beta, float* c,
                                                 std::int64_t c_stride) {
    float tile[kTileRows * kTileColumns];
    multiply_tile(depth, a, b, alpha, 0.0F, tile, kTileColumns);
    for (std::int64_t i = 0; i < rows; ++i) {
        for (std::int64_t j = 0; j < columns; ++j) {
            float& to = c[i * c_stride + j];
            to = beta == 0.0F ? tile[i * kTileColumns + j] : tile[i * kTileColumns + j] + beta * to;
        }
    }
}

Operand from(const Operand& operand, std::int64_t row, std::int64_t column) {
    return {operand.data + row * operand.row_stride + column * operand.column_stride, operand.row_stride,
            operand.column_stride};
}

MHA2MLA_AVX512 void multiply(std::int64_t m, std::int64_t n, std::int64_t k, float alpha, Operand a, Operand b,
                             float beta, float* c, std::int64_t c_stride, bool upper_only) {
    Panels& own = panels();
    for (std::int64_t column = 0; column < n; column += kRightColumns) {
        const std::int64_t columns = std::min(kRightColumns, n - column);
        for (std::int64_t i = 0; i < k; i += kDepth) {
            const std::int64_t depth = std::min(kDepth, k - i);
            const float kept = i == 0 ? beta : 1.0F;
            pack_right(depth, columns, from(b, i, column), own.right.data());
            for (std::int64_t row = 0; row < m; row += kLeftRows) {
                if (upper_only && row >= column + columns) break;
                const std::int64_t rows = std::min(kLeftRows, m - row);
                pack_left(rows, depth, from(a, row, i), own.left.data());
                for (std::int64_t strip = 0; strip < columns; strip += kTileColumns) {
                    const float* right = own.right.data() + strip * depth;
                    const std::int64_t width = std::min(kTileColumns, columns - strip);
                    for (std::int64_t tile = 0; tile < rows; tile += kTileRows) {
                        if (upper_only && row + tile >= column + strip + width) break;
                        const std::int64_t height = std::min(kTileRows, rows - tile);
                        const float* left = own.left.data() + tile * kLeftStride;
                        float* out = c + (row + tile) * c_stride + column + strip;
                        if (height == kTileRows && width == kTileColumns) {
                            multiply_tile(depth, left, right, alpha, kept, out, c_stride);
                        } else {
                            multiply_edge(height, width, depth, left, right, alpha, kept, out, c_stride);
                        }
                    }
                }
            }
        }
    }
}

}  // namespace
}  // namespace mha2mla

#endif

namespace mha2mla {

bool wide_product([[maybe_unused]] std::int64_t m, [[maybe_unused]] std::int64_t n, [[maybe_unused]] std::int64_t k,
                  [[maybe_unused]] float alpha, [[maybe_unused]] Operand a, [[maybe_unused]] Operand b,
                  [[maybe_unused]] float beta, [[maybe_unused]] float* c, [[maybe_unused]] std::int64_t c_stride,
                  [[maybe_unused]] bool upper_only) {
#if defined(__x86_64__)
    if (has_avx512() && m >= kTileRows && n >= kTileColumns && k >= kLanes) {
        multiply(m, n, k, alpha, a, b, beta, c, c_stride, upper_only);
        return true;
    }
#endif
    return false;
}

}  // namespace mha2mla
