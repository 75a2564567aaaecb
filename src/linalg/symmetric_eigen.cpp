#include "symmetric_eigen.hpp"

#include <algorithm>
#include <utility>

#include "../support/parallel.hpp"
#include "blas.hpp"
#include "tridiagonalise.hpp"

namespace mha2mla {
namespace {

/// Reflectors of the tridiagonalisation that are applied together.
constexpr std::int64_t kReflectors = 128;
/// Vectors that one thread transforms back together.
constexpr std::int64_t kVectors = 128;

/// The product of the reflectors H_first … H_last-1 as I - Vᵀ T V.
template <typename Real>
struct ReflectorBlock {
    std::int64_t first, count;
    RowMajor<Real> t;  // [count, count], upper triangular
};

/// Zeroes the rows of `matrix` left of their reflectors and gathers those into blocks (Joffrain et al. 2006: T⁻¹ is the
/// upper triangle of V·Vᵀ with 1/τ as its diagonal).
template <typename Real>
std::vector<ReflectorBlock<Real>> block_reflectors(std::vector<Real>& matrix, std::int64_t n, std::vector<Real>& tau) {
    std::vector<ReflectorBlock<Real>> blocks;
    for (std::int64_t first = 0; first < n - 1; first += kReflectors) {
        blocks.push_back({first, std::min(kReflectors, n - 1 - first), {}});
    }
    parallel_for(static_cast<std::int64_t>(blocks.size()), [&](std::int64_t b, std::vector<float>&) {
        ReflectorBlock<Real>& block = blocks[static_cast<std::size_t>(b)];
        RowMajor<Real> inverse(block.count, block.count);
        for (std::int64_t i = 0; i < block.count; ++i) {
            const std::int64_t j = block.first + i;
            Real* row = matrix.data() + j * n;
            std::fill(row + block.first, row + j + 1, Real(0));
            // τ = 0 stands for the identity, which an empty reflector is too.
            if (tau[static_cast<std::size_t>(j)] == Real(0)) std::fill(row + j + 1, row + n, Real(0));
        }
        const Real* v = matrix.data() + block.first * n + block.first + 1;
        syrk(CblasNoTrans, block.count, n - 1 - block.first, Real(1), v, n, Real(0), inverse.data(), block.count);
        for (std::int64_t i = 0; i < block.count; ++i) {
            const Real factor = tau[static_cast<std::size_t>(block.first + i)];
            inverse(i, i) = factor == Real(0) ? Real(1) : Real(1) / factor;
        }
        block.t =
            inverse.template triangularView<Eigen::Upper>().solve(RowMajor<Real>::Identity(block.count, block.count));
    });
    return blocks;
}

/// vectors ← vectors · Qᵀ, a few rows at a time.
template <typename Real>
void back_transform(const std::vector<Real>& reflectors, std::int64_t n,
                    const std::vector<ReflectorBlock<Real>>& blocks, RowMajor<Real>& vectors) {
    parallel_for((vectors.rows() + kVectors - 1) / kVectors, [&](std::int64_t tile, std::vector<float>&) {
        const std::int64_t rows = std::min<std::int64_t>(kVectors, vectors.rows() - tile * kVectors);
        RowMajor<Real> projected(rows, kReflectors), combined(rows, kReflectors);
        for (auto block = blocks.rbegin(); block != blocks.rend(); ++block) {
            const std::int64_t length = n - 1 - block->first;
            const Real* v = reflectors.data() + block->first * n + block->first + 1;
            Real* x = vectors.data() + tile * kVectors * n + block->first + 1;
            gemm(CblasNoTrans, CblasTrans, rows, block->count, length, Real(1), x, n, v, n, Real(0), projected.data(),
                 kReflectors);
            gemm(CblasNoTrans, CblasTrans, rows, block->count, block->count, Real(1), projected.data(), kReflectors,
                 block->t.data(), block->count, Real(0), combined.data(), kReflectors);
            gemm(CblasNoTrans, CblasNoTrans, rows, length, block->count, Real(-1), combined.data(), kReflectors, v, n,
                 Real(1), x, n);
        }
    });
}

}  // namespace

template <typename Real>
LeadingEigen<Real> leading_eigenvectors(std::vector<Real>& matrix, std::int64_t n, std::int64_t count) {
    auto [d, e, tau] = tridiagonalise(matrix, n);
    auto result = leading_tridiagonal_eigenvectors(std::move(d), std::move(e), count);
    back_transform(matrix, n, block_reflectors(matrix, n, tau), result.vectors);
    return result;
}

template LeadingEigen<float> leading_eigenvectors(std::vector<float>&, std::int64_t, std::int64_t);
template LeadingEigen<double> leading_eigenvectors(std::vector<double>&, std::int64_t, std::int64_t);

}  // namespace mha2mla
