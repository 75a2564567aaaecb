#pragma once
/// Products of floats on the tiles of AMX, which multiply BF16: each factor is the sum of two numbers of BF16, and of
/// the four products of these the smallest is left out, so that a product is exact to 2^-16 of it. Sums are float32.

#include <cstdint>

#include "gemm.hpp"

namespace mha2mla {

/// Whether a product of this size is worth the rearrangement of its factors; never without has_amx().
[[nodiscard]] bool amx_pays(std::int64_t m, std::int64_t n, std::int64_t k);

/// c[m, n] = alpha * op(a)[m, k] * op(b)[k, n], or c += with `add`, on the calling thread. Where b is a matrix of BF16
/// in float32, as the weights of most checkpoints, its products are exact but for a. Only where has_amx().
void amx_gemm(std::int64_t m, std::int64_t n, std::int64_t k, float alpha, const Factor& a, const Factor& b, bool add,
              MatrixOut c);

}  // namespace mha2mla
