#pragma once
#include <algorithm>
#include <type_traits>

#include "../support/parallel.hpp"
#include "blas.hpp"

namespace mha2mla {

/// c[m, n] = op(a)[m, k] * op(b)[k, n] + beta * c on the team, in strips of rows that do not depend on its size.
template <typename Real>
void team_gemm(CBLAS_TRANSPOSE trans_a, CBLAS_TRANSPOSE trans_b, std::int64_t m, std::int64_t n, std::int64_t k,
               const Real* a, std::int64_t a_stride, const Real* b, std::int64_t b_stride,
               std::type_identity_t<Real> beta, Real* c, std::int64_t c_stride) {
    // BLAS packs b once more for each strip, which costs a fifth of the time at 64 rows and a tenth at 128.
    const std::int64_t rows = m < 512 ? 64 : 128;
    if (n == 0 || k == 0) return;
    parallel_for((m + rows - 1) / rows, [&](std::int64_t strip, std::vector<float>&) {
        const std::int64_t first = strip * rows;
        gemm(trans_a, trans_b, std::min(rows, m - first), n, k, Real(1),
             a + (trans_a == CblasNoTrans ? first * a_stride : first), a_stride, b, b_stride, beta,
             c + first * c_stride, c_stride);
    });
}

}  // namespace mha2mla
