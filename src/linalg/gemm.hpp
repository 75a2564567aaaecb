#pragma once
/// Products of float matrices, row-major, by BLAS or on the tiles of AMX (amx.hpp).

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
/// A matrix operand that may be stored transposed.
struct Factor {
    MatrixIn stored;
    bool transposed = false;
};

/// What is kept of the factors. Sums are float32.
enum class ProductPrecision : std::uint8_t {
    full,
    split,  // 16 bits, on the tiles of AMX where the processor has them; a factor of BF16 is exact
};

/// c[m,n] = alpha * a[m,k] * b[k,n] + beta * c, on the calling thread.
void multiply(std::int64_t m, std::int64_t n, std::int64_t k, float alpha, const Factor& a, const Factor& b, float beta,
              MatrixOut c, ProductPrecision precision);
/// c[m,n] = a[m,k] * b[k,n] + beta * c on the team. Results do not depend on its size.
void team_multiply(std::int64_t m, std::int64_t n, std::int64_t k, const Factor& a, const Factor& b, float beta,
                   MatrixOut c, ProductPrecision precision);

/// c[m,n] = alpha * a[m,k] * b[n,k]ᵀ + beta * c
inline void multiply_abt(std::int64_t m, std::int64_t n, std::int64_t k, float alpha, MatrixIn a, MatrixIn b,
                         float beta, MatrixOut c, ProductPrecision precision = ProductPrecision::full) {
    multiply(m, n, k, alpha, {a}, {b, true}, beta, c, precision);
}
/// c[m,n] = alpha * a[m,k] * b[k,n] + beta * c
inline void multiply_ab(std::int64_t m, std::int64_t n, std::int64_t k, float alpha, MatrixIn a, MatrixIn b, float beta,
                        MatrixOut c, ProductPrecision precision = ProductPrecision::full) {
    multiply(m, n, k, alpha, {a}, {b}, beta, c, precision);
}
/// c[m,n] = alpha * a[k,m]ᵀ * b[k,n] + beta * c
inline void multiply_atb(std::int64_t m, std::int64_t n, std::int64_t k, float alpha, MatrixIn a, MatrixIn b,
                         float beta, MatrixOut c, ProductPrecision precision = ProductPrecision::full) {
    multiply(m, n, k, alpha, {a, true}, {b}, beta, c, precision);
}

}  // namespace mha2mla
