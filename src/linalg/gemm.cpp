#include "gemm.hpp"

#include <algorithm>

#include "../support/parallel.hpp"
#include "amx.hpp"
#include "team_gemm.hpp"

namespace mha2mla {
namespace {

// Of a product on the team: what a thread rearranges once is used for a whole tile.
constexpr std::int64_t kAmxRows = 256, kAmxColumns = 512;

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
    if (precision == ProductPrecision::full || !amx_pays(m, n, k)) {
        return team_gemm(transposition(a), transposition(b), m, n, k, a.stored.data, a.stored.stride, b.stored.data,
                         b.stored.stride, beta, c.data, c.stride);
    }
    const std::int64_t columns = (n + kAmxColumns - 1) / kAmxColumns;
    parallel_for((m + kAmxRows - 1) / kAmxRows * columns, [&](std::int64_t tile, std::vector<float>&) {
        const std::int64_t row = tile / columns * kAmxRows, column = tile % columns * kAmxColumns;
        multiply(std::min(kAmxRows, m - row), std::min(kAmxColumns, n - column), k, 1, part(a, row, 0),
                 part(b, 0, column), beta, {c.data + row * c.stride + column, c.stride}, precision);
    });
}

}  // namespace mha2mla
