#include "gemm.hpp"

#include "blas.hpp"

namespace mha2mla {

void multiply_abt(std::int64_t m, std::int64_t n, std::int64_t k, float alpha, MatrixIn a, MatrixIn b, float beta,
                  MatrixOut c) {
    if (m == 0 || n == 0) return;
    gemm(CblasNoTrans, CblasTrans, m, n, k, alpha, a.data, a.stride, b.data, b.stride, beta, c.data, c.stride);
}

void multiply_ab(std::int64_t m, std::int64_t n, std::int64_t k, float alpha, MatrixIn a, MatrixIn b, float beta,
                 MatrixOut c) {
    if (m == 0 || n == 0) return;
    gemm(CblasNoTrans, CblasNoTrans, m, n, k, alpha, a.data, a.stride, b.data, b.stride, beta, c.data, c.stride);
}

}  // namespace mha2mla
