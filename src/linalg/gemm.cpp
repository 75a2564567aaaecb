#include "gemm.hpp"

#include <algorithm>

#include "../support/parallel.hpp"
#include "amx.hpp"
#include "mha2mla/threads.hpp"
#include "team_gemm.hpp"

namespace mha2mla {
namespace {

// Of a product on the team: what a thread rearranges once is used for a whole tile, so tiles are as large as leaves
// every thread two. Sums do not depend on where tiles end.
constexpr std::int64_t kMostTileRows = 1024, kMostTileColumns = 640, kTileStep = 32;

std::int64_t parts(std::int64_t size, std::int64_t most) { return (size + most - 1) / most; }

/// Rows or columns of a tile where `size` of them are divided into equal parts.
std::int64_t tile_size(std::int64_t size, std::int64_t count) {
    return parts(parts(size, count), kTileStep) * kTileStep;
}

CBLAS_TRANSPOSE transposition(const Factor& factor) { return factor.transposed ? CblasTrans : CblasNoTrans; }

/// From row and column `row`, `column` of the factor on.
Factor part(const Factor& factor, std::int64_t row, std::int64_t column) {
    const auto [data, stride] = factor.stored;
    return {{data + (factor.transposed ? column * stride + row : row * stride + column), stride}, factor.transposed};
}

}  // namespace

void multiply(std::int64_t m, std::int64_t n, std::int64_t k, float alpha, const Factor& a, const Factor& b, float beta,
              MatrixOut c, ProductPrecision precision) {
    if (m == 0 || n == 0) return;
    if (precision == ProductPrecision::split && (beta == 0 || beta == 1) && amx_pays(m, n, k))
        return amx_gemm(m, n, k, alpha, a, b, beta == 1, c);
    if (beta == 0) {  // BLAS with beta 1 is faster
        for (std::int64_t i = 0; i < m; ++i) std::fill_n(c.data + i * c.stride, n, 0.0F);
        beta = 1;
    }
    gemm(transposition(a), transposition(b), m, n, k, alpha, a.stored.data, a.stored.stride, b.stored.data,
         b.stored.stride, beta, c.data, c.stride);
}

void team_multiply(std::int64_t m, std::int64_t n, std::int64_t k, const Factor& a, const Factor& b, float beta,
                   MatrixOut c, ProductPrecision precision) {
    if (precision == ProductPrecision::full || (beta != 0 && beta != 1) || !amx_pays(m, n, k)) {
        return team_gemm(transposition(a), transposition(b), m, n, k, a.stored.data, a.stored.stride, b.stored.data,
                         b.stored.stride, beta, c.data, c.stride);
    }
    const std::int64_t across = parts(n, kMostTileColumns);
    const std::int64_t width = tile_size(n, across);
    const std::int64_t height = tile_size(m, std::max(parts(m, kMostTileRows), parts(2 * thread_count(), across)));
    parallel_for(parts(m, height) * across, [&](std::int64_t tile, std::vector<float>&) {
        const std::int64_t row = tile / across * height, column = tile % across * width;
        amx_gemm(std::min(height, m - row), std::min(width, n - column), k, 1, part(a, row, 0), part(b, 0, column),
                 beta == 1, {c.data + row * c.stride + column, c.stride});
    });
}

}  // namespace mha2mla
