#include "tiled.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <numeric>
#include <type_traits>

#include "../support/parallel.hpp"
#include "blas.hpp"

namespace mha2mla {
namespace {

constexpr std::int64_t kTile = 512;    // rows and columns of a tile of the result
constexpr std::int64_t kDepth = 2048;  // terms of the sums between two conversions to double

/// Zeros in pages of 2 MB if the system has them, because the reduction that follows reads whole columns.
template <typename Real>
std::vector<Real> zeros_in_huge_pages(std::size_t count) {
    std::vector<Real> numbers;
    numbers.reserve(count);
    void* first = numbers.data();
    std::size_t bytes = count * sizeof(Real);
    const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
    if (std::align(page, page, first, bytes) != nullptr) ::madvise(first, bytes / page * page, MADV_HUGEPAGE);
    numbers.resize(count);
    return numbers;
}

std::int64_t tiles(std::int64_t size) { return (size + kTile - 1) / kTile; }

/// A block of A in Real: in place for float, converted into `scratch` for double.
template <typename Real>
struct Block {
    const Real* data;
    std::int64_t stride;
};
template <typename Real>
Block<Real> block_of(const MatrixRef& a, std::int64_t row, std::int64_t rows, std::int64_t column, std::int64_t columns,
                     RowMajor<Real>& scratch) {
    if constexpr (std::is_same_v<Real, float>) {
        return {a.data() + row * a.outerStride() + column, a.outerStride()};
    } else {
        scratch = a.block(row, column, rows, columns).template cast<Real>();
        return {scratch.data(), columns};
    }
}

/// A·Aᵀ if `wide`, otherwise Aᵀ·A.
template <typename Real>
std::vector<Real> gram(const MatrixRef& a, bool wide) {
    const std::int64_t n = wide ? a.rows() : a.cols();
    const std::int64_t depth = wide ? a.cols() : a.rows();
    auto sums = zeros_in_huge_pages<Real>(static_cast<std::size_t>(n * n));
    const std::int64_t count = tiles(n);
    parallel_for(count * (count + 1) / 2, [&](std::int64_t item, std::vector<float>&) {
        std::int64_t i = 0;
        while ((i + 1) * (i + 2) / 2 <= item) ++i;
        const std::int64_t column = i * kTile;
        const std::int64_t row = (item - i * (i + 1) / 2) * kTile;
        const std::int64_t rows = std::min(kTile, n - row);
        const std::int64_t columns = std::min(kTile, n - column);
        Real* out = sums.data() + row * n + column;
        RowMajor<Real> left_copy, right_copy;
        for (std::int64_t k = 0; k < depth; k += kDepth) {
            const std::int64_t step = std::min(kDepth, depth - k);
            const auto operand = [&](std::int64_t first, std::int64_t size, RowMajor<Real>& copy) {
                return wide ? block_of(a, first, size, k, step, copy) : block_of(a, k, step, first, size, copy);
            };
            const Real beta = k == 0 ? Real(0) : Real(1);
            const Block<Real> left = operand(row, rows, left_copy);
            if (row == column) {
                syrk(wide ? CblasNoTrans : CblasTrans, rows, step, Real(1), left.data, left.stride, beta, out, n);
                continue;
            }
            const Block<Real> right = operand(column, columns, right_copy);
            gemm(wide ? CblasNoTrans : CblasTrans, wide ? CblasTrans : CblasNoTrans, rows, columns, step, Real(1),
                 left.data, left.stride, right.data, right.stride, beta, out, n);
        }
    });
    return sums;
}

}  // namespace

double squared_norm(const MatrixRef& a) {
    std::vector<double> sums(static_cast<std::size_t>(tiles(a.rows())));
    parallel_for(tiles(a.rows()), [&](std::int64_t tile, std::vector<float>&) {
        const auto rows = a.middleRows(tile * kTile, std::min<std::int64_t>(kTile, a.rows() - tile * kTile));
        sums[static_cast<std::size_t>(tile)] = rows.cast<double>().squaredNorm();
    });
    return std::accumulate(sums.begin(), sums.end(), 0.0);
}

template <typename Real>
std::vector<Real> gram_of_smaller_side(const MatrixRef& a) {
    return gram<Real>(a, a.rows() <= a.cols());
}
template <typename Real>
std::vector<Real> gram_of_columns(const MatrixRef& a) {
    return gram<Real>(a, false);
}

template <typename Real>
RowMajor<Real> project_left(Eigen::Ref<const RowMajor<Real>> basis, const MatrixRef& a) {
    RowMajor<Real> result(basis.rows(), a.cols());
    parallel_for(tiles(a.cols()), [&](std::int64_t tile, std::vector<float>&) {
        const std::int64_t column = tile * kTile;
        const std::int64_t columns = std::min<std::int64_t>(kTile, a.cols() - column);
        RowMajor<Real> copy;
        const Block<Real> right = block_of(a, 0, a.rows(), column, columns, copy);
        gemm(CblasNoTrans, CblasNoTrans, basis.rows(), columns, a.rows(), Real(1), basis.data(), basis.outerStride(),
             right.data, right.stride, Real(0), result.data() + column, result.cols());
    });
    return result;
}

template <typename Real>
RowMajor<Real> project_right(const MatrixRef& a, Eigen::Ref<const RowMajor<Real>> basis) {
    RowMajor<Real> result(a.rows(), basis.rows());
    parallel_for(tiles(a.rows()), [&](std::int64_t tile, std::vector<float>&) {
        const std::int64_t row = tile * kTile;
        const std::int64_t rows = std::min<std::int64_t>(kTile, a.rows() - row);
        RowMajor<Real> copy;
        const Block<Real> left = block_of(a, row, rows, 0, a.cols(), copy);
        gemm(CblasNoTrans, CblasTrans, rows, basis.rows(), a.cols(), Real(1), left.data, left.stride, basis.data(),
             basis.outerStride(), Real(0), result.data() + row * basis.rows(), basis.rows());
    });
    return result;
}

template std::vector<float> gram_of_smaller_side(const MatrixRef&);
template std::vector<double> gram_of_smaller_side(const MatrixRef&);
template std::vector<double> gram_of_columns(const MatrixRef&);
template RowMajor<float> project_left(Eigen::Ref<const RowMajor<float>>, const MatrixRef&);
template RowMajor<double> project_left(Eigen::Ref<const RowMajor<double>>, const MatrixRef&);
template RowMajor<float> project_right(const MatrixRef&, Eigen::Ref<const RowMajor<float>>);
template RowMajor<double> project_right(const MatrixRef&, Eigen::Ref<const RowMajor<double>>);

}  // namespace mha2mla
