#pragma once
#include <cstdint>

namespace mha2mla {

/// The product of a few rows of a symmetric matrix with a vector, in one pass over the entries on and right of the
/// diagonal: for each row r < rows and column c >= r
///   y[c] += a[r, c] * v[r]  and, if c > r,  y[r] += a[r, c] * v[c].
/// @param a the first diagonal entry; `stride` is the distance between rows. @param columns from there to the end.
void symmetric_rows_times_vector(const float* a, std::int64_t stride, std::int64_t rows, std::int64_t columns,
                                 const float* v, float* y);
void symmetric_rows_times_vector(const double* a, std::int64_t stride, std::int64_t rows, std::int64_t columns,
                                 const double* v, double* y);

}  // namespace mha2mla
