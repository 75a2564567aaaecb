#pragma once
#include <cstdint>

namespace mha2mla {

/// One operand of a product: element (row, column) is data[row * row_stride + column * column_stride], and one of the
/// strides is 1.
struct Operand {
    const float* data;
    std::int64_t row_stride, column_stride;
};

/// c[m, n] = alpha * a[m, k] * b[k, n] + beta * c, row-major, on the calling thread with AVX-512: both operands are
/// packed into panels that stay in the processor's caches (Goto and van de Geijn 2008). The BLAS of many distributions
/// does not know the AVX-512 of newer processors, and factorisation is little else than such products.
///
/// @param upper_only only the elements on and right of the diagonal are wanted; what is left of it is undefined.
/// @param beta 0: what c holds is not read.
/// @return false, with nothing done, where the processor has no AVX-512 or the product is too small to be worth
/// packing.
[[nodiscard]] bool wide_product(std::int64_t m, std::int64_t n, std::int64_t k, float alpha, Operand a, Operand b,
                                float beta, float* c, std::int64_t c_stride, bool upper_only = false);

}  // namespace mha2mla
