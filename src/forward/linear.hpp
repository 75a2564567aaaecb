#pragma once
#include <span>

#include "../linalg/gemm.hpp"
#include "mha2mla/model.hpp"

namespace mha2mla {

/// y = x·Wᵀ + b. Weights that are not float32 are converted tile by tile.
/// @param x [tokens, in_features], y [tokens, out_features], both contiguous.
/// @param precision of more than a few tokens; these have all of it.
void linear(const LinearView& view, std::int64_t tokens, const float* x, float* y,
            ProductPrecision precision = ProductPrecision::full);

/// One of several maps of the same x. @param y [tokens, out_features], contiguous
struct LinearProduct {
    const LinearView* view;
    float* y;
};
/// linear() of each of them; for few tokens all at once.
void linear(std::span<const LinearProduct> products, std::int64_t tokens, const float* x,
            ProductPrecision precision = ProductPrecision::full);

/// dx = dy·W, or dx += dy·W if `add`: the gradient of linear() with respect to x from that with respect to y, in
/// ProductPrecision::split.
/// @param dy [tokens, out_features], dx [tokens, in_features], both contiguous.
void linear_back(const LinearView& view, std::int64_t tokens, const float* dy, bool add, float* dx);

/// Floats that each thread of linear() or linear_back() allocates.
[[nodiscard]] std::int64_t linear_scratch(std::int64_t in_features);

}  // namespace mha2mla
