#pragma once
/// BLAS by element type, row-major, on the calling thread.

#include <cblas.h>

#include <cstdint>

namespace mha2mla {

inline blasint blas_int(std::int64_t value) { return static_cast<blasint>(value); }

/// c[m, n] = alpha * op(a)[m, k] * op(b)[k, n] + beta * c; strides are distances between rows.
inline void gemm(CBLAS_TRANSPOSE trans_a, CBLAS_TRANSPOSE trans_b, std::int64_t m, std::int64_t n, std::int64_t k,
                 float alpha, const float* a, std::int64_t a_stride, const float* b, std::int64_t b_stride, float beta,
                 float* c, std::int64_t c_stride) {
    cblas_sgemm(CblasRowMajor, trans_a, trans_b, blas_int(m), blas_int(n), blas_int(k), alpha, a, blas_int(a_stride), b,
                blas_int(b_stride), beta, c, blas_int(c_stride));
}
inline void gemm(CBLAS_TRANSPOSE trans_a, CBLAS_TRANSPOSE trans_b, std::int64_t m, std::int64_t n, std::int64_t k,
                 double alpha, const double* a, std::int64_t a_stride, const double* b, std::int64_t b_stride,
                 double beta, double* c, std::int64_t c_stride) {
    cblas_dgemm(CblasRowMajor, trans_a, trans_b, blas_int(m), blas_int(n), blas_int(k), alpha, a, blas_int(a_stride), b,
                blas_int(b_stride), beta, c, blas_int(c_stride));
}

/// The upper triangle of c[n, n] = alpha * op(a) * op(a)ᵀ + beta * c, where op(a) is [n, k].
inline void syrk(CBLAS_TRANSPOSE trans, std::int64_t n, std::int64_t k, float alpha, const float* a,
                 std::int64_t stride, float beta, float* c, std::int64_t c_stride) {
    cblas_ssyrk(CblasRowMajor, CblasUpper, trans, blas_int(n), blas_int(k), alpha, a, blas_int(stride), beta, c,
                blas_int(c_stride));
}
inline void syrk(CBLAS_TRANSPOSE trans, std::int64_t n, std::int64_t k, double alpha, const double* a,
                 std::int64_t stride, double beta, double* c, std::int64_t c_stride) {
    cblas_dsyrk(CblasRowMajor, CblasUpper, trans, blas_int(n), blas_int(k), alpha, a, blas_int(stride), beta, c,
                blas_int(c_stride));
}

/// y = alpha * op(a) * x + y for a [m, n].
inline void gemv(CBLAS_TRANSPOSE trans, std::int64_t m, std::int64_t n, float alpha, const float* a,
                 std::int64_t stride, const float* x, float* y) {
    cblas_sgemv(CblasRowMajor, trans, blas_int(m), blas_int(n), alpha, a, blas_int(stride), x, 1, 1.0F, y, 1);
}
inline void gemv(CBLAS_TRANSPOSE trans, std::int64_t m, std::int64_t n, double alpha, const double* a,
                 std::int64_t stride, const double* x, double* y) {
    cblas_dgemv(CblasRowMajor, trans, blas_int(m), blas_int(n), alpha, a, blas_int(stride), x, 1, 1.0, y, 1);
}

}  // namespace mha2mla
