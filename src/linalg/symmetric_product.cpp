#include "symmetric_product.hpp"

#include <algorithm>
#include <cstring>

#include "instruction_set.hpp"
#include "vectors.hpp"

namespace mha2mla {
namespace {

template <typename Real, int kBytes>
struct SymmetricRows {
    using Vector = VectorOf<Real, kBytes>;
    static constexpr std::int64_t kLanes = kBytes / static_cast<int>(sizeof(Real));
    /// Rows that share each load of y and v: as many as there are registers for.
    static constexpr std::int64_t kRows = kBytes == 64 ? 8 : 4;

    MHA2MLA_INLINE void one_row(const Real* a, std::int64_t columns, const Real* v, Real* y) {
        y[0] += a[0] * v[0];
        Real sum = 0;
        for (std::int64_t c = 1; c < columns; ++c) {
            y[c] += a[c] * v[0];
            sum += a[c] * v[c];
        }
        y[0] += sum;
    }

    /// kRows rows from the column after their diagonal entries on.
    MHA2MLA_INLINE void some_rows(const Real* a, std::int64_t stride, std::int64_t columns, const Real* v, Real* y) {
        for (std::int64_t r = 0; r < kRows; ++r) one_row(a + r * stride + r, kRows - r, v + r, y + r);
        Vector sums[kRows] = {};
        Vector factors[kRows];
        for (std::int64_t r = 0; r < kRows; ++r) factors[r] = Vector{} + v[r];
        std::int64_t c = kRows;
        for (; c + kLanes <= columns; c += kLanes) {
            Vector in, out, row;
            std::memcpy(&in, v + c, kBytes);
            std::memcpy(&out, y + c, kBytes);
            for (std::int64_t r = 0; r < kRows; ++r) {
                std::memcpy(&row, a + r * stride + c, kBytes);
                out += row * factors[r];
                sums[r] += row * in;
            }
            std::memcpy(y + c, &out, kBytes);
        }
        for (std::int64_t r = 0; r < kRows; ++r) {
            Real sum = 0;
            for (std::int64_t lane = 0; lane < kLanes; ++lane) sum += sums[r][lane];
            for (std::int64_t rest = c; rest < columns; ++rest) {
                y[rest] += a[r * stride + rest] * v[r];
                sum += a[r * stride + rest] * v[rest];
            }
            y[r] += sum;
        }
    }

    MHA2MLA_INLINE void all_rows(const Real* a, std::int64_t stride, std::int64_t rows, std::int64_t columns,
                                 const Real* v, Real* y) {
        std::int64_t r = 0;
        for (; r + kRows <= std::min(rows, columns); r += kRows) {
            some_rows(a + r * stride + r, stride, columns - r, v + r, y + r);
        }
        for (; r < std::min(rows, columns); ++r) one_row(a + r * stride + r, columns - r, v + r, y + r);
    }
};

#define MHA2MLA_SYMMETRIC(name, Real, bytes, target)                                                             \
    target void name(const Real* a, std::int64_t stride, std::int64_t rows, std::int64_t columns, const Real* v, \
                     Real* y) {                                                                                  \
        SymmetricRows<Real, bytes>::all_rows(a, stride, rows, columns, v, y);                                    \
    }

MHA2MLA_SYMMETRIC(baseline, float, 16, )
MHA2MLA_SYMMETRIC(baseline, double, 16, )
#if defined(__x86_64__)
MHA2MLA_SYMMETRIC(avx2, float, 32, MHA2MLA_AVX2)
MHA2MLA_SYMMETRIC(avx2, double, 32, MHA2MLA_AVX2)
MHA2MLA_SYMMETRIC(avx512, float, 64, MHA2MLA_AVX512)
MHA2MLA_SYMMETRIC(avx512, double, 64, MHA2MLA_AVX512)
#endif

template <typename Real>
void dispatch(const Real* a, std::int64_t stride, std::int64_t rows, std::int64_t columns, const Real* v, Real* y) {
#if defined(__x86_64__)
    if (has_avx512()) return avx512(a, stride, rows, columns, v, y);
    if (has_avx2()) return avx2(a, stride, rows, columns, v, y);
#endif
    baseline(a, stride, rows, columns, v, y);
}

}  // namespace

void symmetric_rows_times_vector(const float* a, std::int64_t stride, std::int64_t rows, std::int64_t columns,
                                 const float* v, float* y) {
    dispatch(a, stride, rows, columns, v, y);
}
void symmetric_rows_times_vector(const double* a, std::int64_t stride, std::int64_t rows, std::int64_t columns,
                                 const double* v, double* y) {
    dispatch(a, stride, rows, columns, v, y);
}

}  // namespace mha2mla
