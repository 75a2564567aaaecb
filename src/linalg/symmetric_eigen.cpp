#include "symmetric_eigen.hpp"

#include <lapacke.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "../support/parallel.hpp"
#include "mha2mla/error.hpp"

// The drivers for whole matrices take longer: ?syevd also transforms the unwanted vectors back (1.1 to 1.8 times the
// time in float32 from n = 576 on, a quarter of the vectors wanted), ?syevr bisects for a subset (1.2 to 1.7 times).
// Measured by bench/symmetric_eigen.cpp.

namespace mha2mla {
namespace {

/// Vectors that one thread transforms back together.
constexpr std::int64_t kVectors = 256;

// LAPACK by element type, column-major: our rows are its columns, and our upper triangle is its lower one.
lapack_int sytrd(lapack_int n, float* a, float* d, float* e, float* tau) {
    return LAPACKE_ssytrd(LAPACK_COL_MAJOR, 'L', n, a, n, d, e, tau);
}
lapack_int sytrd(lapack_int n, double* a, double* d, double* e, double* tau) {
    return LAPACKE_dsytrd(LAPACK_COL_MAJOR, 'L', n, a, n, d, e, tau);
}
// Workspaces are given here and not asked for: the queries of the single-precision routine answer in a float, which
// rounds large sizes.
lapack_int stedc(lapack_int n, float* d, float* e, float* z, std::vector<float>& work, std::vector<lapack_int>& iwork) {
    return LAPACKE_sstedc_work(LAPACK_COL_MAJOR, 'I', n, d, e, z, n, work.data(), static_cast<lapack_int>(work.size()),
                               iwork.data(), static_cast<lapack_int>(iwork.size()));
}
lapack_int stedc(lapack_int n, double* d, double* e, double* z, std::vector<double>& work,
                 std::vector<lapack_int>& iwork) {
    return LAPACKE_dstedc_work(LAPACK_COL_MAJOR, 'I', n, d, e, z, n, work.data(), static_cast<lapack_int>(work.size()),
                               iwork.data(), static_cast<lapack_int>(iwork.size()));
}
lapack_int ormtr(lapack_int n, lapack_int count, const float* a, const float* tau, float* vectors) {
    return LAPACKE_sormtr(LAPACK_COL_MAJOR, 'L', 'L', 'N', n, count, a, n, tau, vectors, n);
}
lapack_int ormtr(lapack_int n, lapack_int count, const double* a, const double* tau, double* vectors) {
    return LAPACKE_dormtr(LAPACK_COL_MAJOR, 'L', 'L', 'N', n, count, a, n, tau, vectors, n);
}

void check(lapack_int info, const char* routine) {
    if (info == 0) return;
    throw Error(ErrorCode::numeric, std::string("eigenvalue decomposition failed: LAPACK ") + routine + " returned " +
                                        std::to_string(info));
}

/// A power of two that brings the largest entry of the upper triangle near 1.
template <typename Real>
Real scale_of(const std::vector<Real>& matrix, std::int64_t n) {
    Real largest = 0;
    for (std::int64_t i = 0; i < n; ++i) {
        const Real* row = matrix.data() + i * n;
        for (std::int64_t j = i; j < n; ++j) largest = std::max(largest, std::abs(row[j]));
    }
    return largest > 0 ? std::exp2(-std::floor(std::log2(largest))) : Real(1);
}

/// Eigenvectors, one in a row, by rising value. @param d, e become the values and scratch.
template <typename Real>
RowMajor<Real> tridiagonal_eigenvectors(std::vector<Real>& d, std::vector<Real>& e) {
    const std::size_t n = d.size();
    RowMajor<Real> vectors(static_cast<std::int64_t>(n), static_cast<std::int64_t>(n));
    std::vector<Real> work(1 + 4 * n + n * n);
    std::vector<lapack_int> iwork(3 + 5 * n);
    check(stedc(static_cast<lapack_int>(n), d.data(), e.data(), vectors.data(), work, iwork), "stedc");
    return vectors;
}

}  // namespace

template <typename Real>
LeadingEigen<Real> leading_eigenvectors(std::vector<Real>& matrix, std::int64_t n, std::int64_t count) {
    const auto size = static_cast<std::size_t>(n);
    const auto order = static_cast<lapack_int>(n);
    const Real scale = scale_of(matrix, n);
    for (Real& value : matrix) value *= scale;
    std::vector<Real> d(size), e(size), tau(size);
    check(sytrd(order, matrix.data(), d.data(), e.data(), tau.data()), "sytrd");
    RowMajor<Real> vectors = tridiagonal_eigenvectors(d, e);

    LeadingEigen<Real> result;
    result.values.assign(d.rbegin(), d.rend());
    for (Real& value : result.values) value /= scale;
    result.vectors = vectors.bottomRows(count).colwise().reverse();
    vectors.resize(0, 0);
    parallel_for((count + kVectors - 1) / kVectors, [&](std::int64_t tile, std::vector<float>&) {
        const std::int64_t first = tile * kVectors;
        const auto columns = static_cast<lapack_int>(std::min(kVectors, count - first));
        check(ormtr(order, columns, matrix.data(), tau.data(), result.vectors.row(first).data()), "ormtr");
    });
    return result;
}

template LeadingEigen<float> leading_eigenvectors(std::vector<float>&, std::int64_t, std::int64_t);
template LeadingEigen<double> leading_eigenvectors(std::vector<double>&, std::int64_t, std::int64_t);

}  // namespace mha2mla
