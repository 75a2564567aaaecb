#pragma once
/// Matrix products on the calling thread, row-major, through BLAS.

#include <cstdint>

namespace mha2mla {

/// A matrix operand: pointer to the first element and the distance between rows.
struct MatrixIn {
    const float* data;
    std::int64_t stride;
};
struct MatrixOut {
    float* data;
    std::int64_t stride;
};

/// c[m,n] = alpha * a[m,k] * b[n,k]ᵀ + beta * c
void multiply_abt(std::int64_t m, std::int64_t n, std::int64_t k, float alpha, MatrixIn a, MatrixIn b, float beta,
                  MatrixOut c);
/// c[m,n] = alpha * a[m,k] * b[k,n] + beta * c
void multiply_ab(std::int64_t m, std::int64_t n, std::int64_t k, float alpha, MatrixIn a, MatrixIn b, float beta,
                 MatrixOut c);

}  // namespace mha2mla
