#include "tridiagonal_eigen.hpp"

#include <lapacke.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "../support/parallel.hpp"
#include "mha2mla/error.hpp"
#include "rank_one_update.hpp"

namespace mha2mla {
namespace {

/// Pieces up to this size are LAPACK's.
constexpr std::int64_t kPiece = 512;

// LAPACK by element type. The workspaces are given here and not asked for: the queries of the single-precision
// routines answer in a float, which rounds large sizes.
lapack_int stedc(lapack_int n, float* d, float* e, float* z, std::vector<float>& work, std::vector<lapack_int>& iwork) {
    return LAPACKE_sstedc_work(LAPACK_COL_MAJOR, 'I', n, d, e, z, n, work.data(), static_cast<lapack_int>(work.size()),
                               iwork.data(), static_cast<lapack_int>(iwork.size()));
}
lapack_int stedc(lapack_int n, double* d, double* e, double* z, std::vector<double>& work,
                 std::vector<lapack_int>& iwork) {
    return LAPACKE_dstedc_work(LAPACK_COL_MAJOR, 'I', n, d, e, z, n, work.data(), static_cast<lapack_int>(work.size()),
                               iwork.data(), static_cast<lapack_int>(iwork.size()));
}

/// @param d, e overwritten.
template <typename Real>
EigenPiece<Real> solve_piece(Real* d, Real* e, std::int64_t n) {
    const auto size = static_cast<std::size_t>(n);
    EigenPiece<Real> piece;
    piece.vectors.resize(n, n);  // LAPACK's columns are our rows
    std::vector<Real> work(1 + 4 * size + size * size);
    std::vector<lapack_int> iwork(3 + 5 * size);
    const lapack_int info = stedc(static_cast<lapack_int>(n), d, e, piece.vectors.data(), work, iwork);
    if (info != 0) {
        throw Error(ErrorCode::numeric,
                    "eigenvalue decomposition failed: LAPACK stedc returned " + std::to_string(info));
    }
    piece.values.assign(d, d + n);
    return piece;
}

/// A power of two that brings the largest entry near 1.
template <typename Real>
Real scale_of(const std::vector<Real>& d, const std::vector<Real>& e) {
    Real largest = 0;
    for (const auto* x : {&d, &e}) {
        for (const Real value : *x) largest = std::max(largest, std::abs(value));
    }
    return largest > 0 ? std::exp2(-std::floor(std::log2(largest))) : Real(1);
}

}  // namespace

template <typename Real>
LeadingEigen<Real> leading_tridiagonal_eigenvectors(std::vector<Real> d, std::vector<Real> e, std::int64_t count) {
    const auto n = static_cast<std::int64_t>(d.size());
    e.back() = 0;
    const Real scale = scale_of(d, e);
    for (auto* x : {&d, &e}) {
        for (Real& value : *x) value *= scale;
    }
    std::int64_t pieces = 1;
    while (n > pieces * kPiece) pieces *= 2;
    const auto start = [&](std::int64_t piece, std::int64_t of) { return n * piece / of; };
    for (std::int64_t piece = 1; piece < pieces; ++piece) {
        const auto first = static_cast<std::size_t>(start(piece, pieces));
        const Real coupling = std::abs(e[first - 1]);
        d[first - 1] -= coupling;
        d[first] -= coupling;
    }
    const std::vector<Real> couplings = e;
    std::vector<EigenPiece<Real>> solved(static_cast<std::size_t>(pieces));
    parallel_for(pieces, [&](std::int64_t piece, std::vector<float>&) {
        const std::int64_t first = start(piece, pieces);
        solved[static_cast<std::size_t>(piece)] =
            solve_piece(d.data() + first, e.data() + first, start(piece + 1, pieces) - first);
    });
    for (; pieces > 1; pieces /= 2) {
        std::vector<EigenPiece<Real>> merged;
        for (std::int64_t piece = 0; piece < pieces; piece += 2) {
            const auto left = static_cast<std::size_t>(piece);
            const Real coupling = couplings[static_cast<std::size_t>(start(piece + 1, pieces) - 1)];
            const std::int64_t size = start(piece + 2, pieces) - start(piece, pieces);
            merged.push_back(merge_pieces(std::move(solved[left]), std::move(solved[left + 1]), coupling,
                                          pieces == 2 ? count : size));
        }
        solved = std::move(merged);
    }
    LeadingEigen<Real> result;
    result.values.assign(solved[0].values.rbegin(), solved[0].values.rend());
    for (Real& value : result.values) value /= scale;
    result.vectors = solved[0].vectors.bottomRows(count).colwise().reverse();
    return result;
}

template LeadingEigen<float> leading_tridiagonal_eigenvectors(std::vector<float>, std::vector<float>, std::int64_t);
template LeadingEigen<double> leading_tridiagonal_eigenvectors(std::vector<double>, std::vector<double>, std::int64_t);

}  // namespace mha2mla
