#pragma once
#include <cstdint>
#include <random>

#include "mha2mla/matrix.hpp"

namespace mha2mla::test {

/// Numbers of the normal distribution, always the same for a seed.
inline Matrix normal_matrix(std::int64_t rows, std::int64_t columns, unsigned seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> distribution;
    return Matrix::NullaryExpr(rows, columns, [&] { return distribution(random); });
}

}  // namespace mha2mla::test
