#include "symmetric_eigen.hpp"

#include <lapacke.h>

#include <algorithm>
#include <string>

#include "mha2mla/error.hpp"

namespace mha2mla {
namespace {

// LAPACK by element type. The workspaces are given here and not asked for: the queries of the single-precision
// routines answer in a float, which rounds the size that divide and conquer needs from n = 4096 on.

lapack_int tridiagonalise(lapack_int n, float* a, float* d, float* e, float* tau, std::vector<float>& work) {
    return LAPACKE_ssytrd_work(LAPACK_COL_MAJOR, 'U', n, a, n, d, e, tau, work.data(),
                               static_cast<lapack_int>(work.size()));
}
lapack_int tridiagonalise(lapack_int n, double* a, double* d, double* e, double* tau, std::vector<double>& work) {
    return LAPACKE_dsytrd_work(LAPACK_COL_MAJOR, 'U', n, a, n, d, e, tau, work.data(),
                               static_cast<lapack_int>(work.size()));
}
lapack_int divide_and_conquer(lapack_int n, float* d, float* e, float* z, std::vector<float>& work,
                              std::vector<lapack_int>& iwork) {
    return LAPACKE_sstedc_work(LAPACK_COL_MAJOR, 'I', n, d, e, z, n, work.data(), static_cast<lapack_int>(work.size()),
                               iwork.data(), static_cast<lapack_int>(iwork.size()));
}
lapack_int divide_and_conquer(lapack_int n, double* d, double* e, double* z, std::vector<double>& work,
                              std::vector<lapack_int>& iwork) {
    return LAPACKE_dstedc_work(LAPACK_COL_MAJOR, 'I', n, d, e, z, n, work.data(), static_cast<lapack_int>(work.size()),
                               iwork.data(), static_cast<lapack_int>(iwork.size()));
}
lapack_int back_transform(lapack_int n, lapack_int count, const float* a, const float* tau, float* z,
                          std::vector<float>& work) {
    return LAPACKE_sormtr_work(LAPACK_COL_MAJOR, 'L', 'U', 'N', n, count, a, n, tau, z, n, work.data(),
                               static_cast<lapack_int>(work.size()));
}
lapack_int back_transform(lapack_int n, lapack_int count, const double* a, const double* tau, double* z,
                          std::vector<double>& work) {
    return LAPACKE_dormtr_work(LAPACK_COL_MAJOR, 'L', 'U', 'N', n, count, a, n, tau, z, n, work.data(),
                               static_cast<lapack_int>(work.size()));
}

void check(lapack_int info, const char* routine) {
    if (info == 0) return;
    throw Error(ErrorCode::numeric, std::string("eigenvalue decomposition failed: LAPACK ") + routine + " returned " +
                                        std::to_string(info));
}

}  // namespace

template <typename Real>
LeadingEigen<Real> leading_eigenvectors(std::vector<Real>& matrix, std::int64_t n, std::int64_t count) {
    const auto size = static_cast<std::size_t>(n);
    const auto order = static_cast<lapack_int>(n);
    constexpr std::size_t kBlock = 64;  // columns that LAPACK handles together
    std::vector<Real> d(size), e(size), tau(size), z(size * size);
    // A row-major lower triangle is a column-major upper one.
    {
        std::vector<Real> work(kBlock * size);
        check(tridiagonalise(order, matrix.data(), d.data(), e.data(), tau.data(), work), "sytrd");
    }
    {
        std::vector<Real> work(1 + 4 * size + size * size);
        std::vector<lapack_int> iwork(3 + 5 * size);
        check(divide_and_conquer(order, d.data(), e.data(), z.data(), work, iwork), "stedc");
    }
    // Eigenvalues rise, so the wanted columns are the last ones.
    Real* wanted = z.data() + (size - static_cast<std::size_t>(count)) * size;
    std::vector<Real> work(kBlock * (size + kBlock + 1));
    check(back_transform(order, static_cast<lapack_int>(count), matrix.data(), tau.data(), wanted, work), "ormtr");
    LeadingEigen<Real> result;
    result.vectors.resize(static_cast<std::size_t>(count) * size);
    for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) {
        result.values.push_back(d[size - 1 - i]);
        std::copy_n(z.data() + (size - 1 - i) * size, size, result.vectors.data() + i * size);
    }
    return result;
}

template LeadingEigen<float> leading_eigenvectors(std::vector<float>&, std::int64_t, std::int64_t);
template LeadingEigen<double> leading_eigenvectors(std::vector<double>&, std::int64_t, std::int64_t);

}  // namespace mha2mla
