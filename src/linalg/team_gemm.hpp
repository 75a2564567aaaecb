#pragma once
#include <algorithm>

#include "../support/parallel.hpp"
#include "blas.hpp"

namespace mha2mla {

/// c[m, n] = op(a)[m, k] * op(b)[k, n] + beta * c on the team, in strips of rows that do not depend on its size.
inline void team_gemm(CBLAS_TRANSPOSE trans_a, CBLAS_TRANSPOSE trans_b, std::int64_t m, std::int64_t n, std::int64_t k,
                      const float* a, std::int64_t a_stride, const float* b, std::int64_t b_stride, float beta,
                      float* c, std::int64_t c_stride) {
    constexpr std::int64_t kStrip = 64;
    if (n == 0 || k == 0) return;
    parallel_for((m + kStrip - 1) / kStrip, [&](std::int64_t strip, std::vector<float>&) {
        const std::int64_t first = strip * kStrip;
        gemm(trans_a, trans_b, std::min(kStrip, m - first), n, k, 1.0F,
             a + (trans_a == CblasNoTrans ? first * a_stride : first), a_stride, b, b_stride, beta,
             c + first * c_stride, c_stride);
    });
}

}  // namespace mha2mla
