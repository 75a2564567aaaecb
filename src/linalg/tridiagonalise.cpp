#include "tridiagonalise.hpp"

#include <omp.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <optional>
#include <thread>

#include "blas.hpp"
#include "symmetric_product.hpp"

namespace mha2mla {
namespace {

constexpr std::int64_t kMaxPanel = 64;  // reflectors between two updates of the rest of the matrix
constexpr std::int64_t kLarge = 3000;   // from here on updates come from memory, and wider panels save some of them
constexpr std::int64_t kStrip = 128;    // rows of the matrix whose product with a vector is summed apart
constexpr std::int64_t kChunk = 256;    // entries of a vector that one thread handles together

/// Thousands of short steps wait for each other here: a waiting thread spins for a moment, then lets others run.
class Barrier {
public:
    explicit Barrier(int threads) : threads_(threads) {}
    void wait() {
        const int phase = phase_.load(std::memory_order_acquire);
        if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == threads_) {
            arrived_.store(0, std::memory_order_relaxed);
            phase_.store(phase + 1, std::memory_order_release);
            return;
        }
        for (int spins = 0; phase_.load(std::memory_order_acquire) == phase; ++spins) {
            if (spins > 2000) std::this_thread::yield();
        }
    }

private:
    const int threads_;
    std::atomic<int> arrived_ = 0;
    std::atomic<int> phase_ = 0;
};

/// The reduction as one team member sees it. All members call reduce(); the work of a step is cut into strips and
/// chunks at fixed places of the matrix, which they share out among themselves.
template <typename Real>
class Reduction {
public:
    Reduction(std::vector<Real>& matrix, std::int64_t n, Tridiagonal<Real>& result)
        : a_(matrix.data()),
          n_(n),
          result_(result),
          strips_((n + kStrip - 1) / kStrip),
          chunks_((n + kChunk - 1) / kChunk),
          width_(n < kLarge ? kMaxPanel / 2 : kMaxPanel),
          panel_(size(3 * width_ * n)),
          products_(size(strips_ * n)),
          norms_(size(chunks_)),
          dots_(size(chunks_)),
          overlaps_(size(chunks_ * 2 * kMaxPanel)) {}

    void reduce(int member, int members, Barrier& barrier) {
        for (std::int64_t first = 0; first < n_ - 1; first += width_) {
            const std::int64_t count = std::min(width_, n_ - 1 - first);
            for (std::int64_t k = 0; k < count; ++k) reduce_row(first, k, member, members, barrier);
            update_rest(first, count, member, members);
            barrier.wait();
        }
        if (member == 0) result_.d[size(n_ - 1)] = a_[n_ * n_ - 1];
    }

private:
    static std::size_t size(std::int64_t count) { return static_cast<std::size_t>(count); }
    /// Row k of the panel's reflectors, and of their products with the matrix. Both [count, n]. Behind the products
    /// stand the reflectors again, so that [v; w] and [w; v] are operands of one product.
    Real* v(std::int64_t k) { return panel_.data() + k * n_; }
    Real* w(std::int64_t k) { return panel_.data() + (width_ + k) * n_; }
    Real* v_again(std::int64_t k) { return panel_.data() + (2 * width_ + k) * n_; }

    /// Whose piece this is, the last of the matrix being number 0. Rows get longer away from it, so turns are taken
    /// back and forth.
    static bool is_mine(std::int64_t from_last, int member, int members) {
        const std::int64_t turn = from_last % (2 * members);
        return member == (turn < members ? turn : 2 * members - 1 - turn);
    }

    /// body(chunk, begin, end) for this member's chunks of the entries from `first` on.
    template <typename Body>
    void for_chunks(std::int64_t first, int member, int members, const Body& body) {
        for (std::int64_t chunk = first / kChunk; chunk < chunks_; ++chunk) {
            if (is_mine(chunks_ - 1 - chunk, member, members))
                body(chunk, std::max(first, chunk * kChunk), std::min(n_, (chunk + 1) * kChunk));
        }
    }
    double sum_from(const std::vector<double>& parts, std::int64_t first) const {
        double sum = 0;
        for (std::int64_t chunk = first / kChunk; chunk < chunks_; ++chunk) sum += parts[size(chunk)];
        return sum;
    }

    void reduce_row(std::int64_t first, std::int64_t k, int member, int members, Barrier& barrier) {
        const std::int64_t i = first + k;
        Real* row = a_ + i * n_;
        // What the panel's earlier reflectors do to this row.
        Real of_v[kMaxPanel], of_w[kMaxPanel];
        for (std::int64_t p = 0; p < k; ++p) {
            of_v[p] = w(p)[i];
            of_w[p] = v(p)[i];
        }
        for_chunks(i, member, members, [&](std::int64_t chunk, std::int64_t begin, std::int64_t end) {
            subtract_panel(k, begin, end, of_v, of_w, row);
            double norm = 0;
            for (std::int64_t c = std::max(begin, i + 2); c < end; ++c) norm += static_cast<double>(row[c]) * row[c];
            norms_[size(chunk)] = norm;
        });
        barrier.wait();
        // The reflector that turns the entries right of the diagonal into (beta, 0, ...).
        const double norm = std::sqrt(sum_from(norms_, i));
        const double alpha = row[i + 1];
        const double beta = norm > 0 ? -std::copysign(std::hypot(alpha, norm), alpha) : alpha;
        const auto tau = static_cast<Real>(norm > 0 ? (beta - alpha) / beta : 0);
        const auto scale = static_cast<Real>(norm > 0 ? 1 / (alpha - beta) : 0);
        barrier.wait();
        Real* vk = v(k);
        for_chunks(i + 1, member, members, [&](std::int64_t, std::int64_t begin, std::int64_t end) {
            for (std::int64_t c = begin; c < end; ++c) row[c] = vk[c] = c == i + 1 ? Real(1) : row[c] * scale;
            std::copy(vk + begin, vk + end, v_again(k) + begin);
        });
        if (member == 0) {
            result_.d[size(i)] = row[i];
            result_.e[size(i)] = static_cast<Real>(beta);
            result_.tau[size(i)] = tau;
        }
        barrier.wait();
        multiply(i + 1, k, member, members);
        barrier.wait();
        finish_product(i + 1, k, tau, member, members);
        barrier.wait();
        const auto correction = static_cast<Real>(-0.5 * tau * sum_from(dots_, i + 1));
        for_chunks(i + 1, member, members, [&](std::int64_t, std::int64_t begin, std::int64_t end) {
            Real* wk = w(k);
            for (std::int64_t c = begin; c < end; ++c) wk[c] += correction * vk[c];
        });
        barrier.wait();
    }

    /// Strip by strip the product of the rest of the matrix with v(k), and chunk by chunk the overlaps of v(k) with
    /// the panel's earlier vectors.
    void multiply(std::int64_t start, std::int64_t k, int member, int members) {
        const Real* vk = v(k);
        for (std::int64_t strip = start / kStrip; strip < strips_; ++strip) {
            if (!is_mine(strips_ - 1 - strip, member, members)) continue;
            const std::int64_t begin = std::max(start, strip * kStrip);
            const std::int64_t end = std::min(n_, (strip + 1) * kStrip);
            Real* y = products_.data() + strip * n_;
            std::fill(y + begin, y + n_, Real(0));
            symmetric_rows_times_vector(a_ + begin * n_ + begin, n_, end - begin, n_ - begin, vk + begin, y + begin);
        }
        for_chunks(start, member, members, [&](std::int64_t chunk, std::int64_t begin, std::int64_t end) {
            Real* overlap = overlaps_.data() + chunk * 2 * kMaxPanel;
            std::fill(overlap, overlap + 2 * kMaxPanel, Real(0));
            if (k == 0) return;
            gemv(CblasNoTrans, k, end - begin, Real(1), v(0) + begin, n_, vk + begin, overlap);
            gemv(CblasNoTrans, k, end - begin, Real(1), w(0) + begin, n_, vk + begin, overlap + kMaxPanel);
        });
    }

    /// w(k) = tau * (A v - V (Wᵀ v) - W (Vᵀ v)), and its overlap with v(k).
    void finish_product(std::int64_t start, std::int64_t k, Real tau, int member, int members) {
        Real of_v[kMaxPanel] = {};
        Real of_w[kMaxPanel] = {};
        for (std::int64_t chunk = start / kChunk; chunk < chunks_; ++chunk) {
            const Real* overlap = overlaps_.data() + chunk * 2 * kMaxPanel;
            for (std::int64_t p = 0; p < k; ++p) {
                of_w[p] += overlap[p];
                of_v[p] += overlap[kMaxPanel + p];
            }
        }
        Real* wk = w(k);
        for_chunks(start, member, members, [&](std::int64_t chunk, std::int64_t begin, std::int64_t end) {
            std::fill(wk + begin, wk + end, Real(0));
            for (std::int64_t strip = start / kStrip; strip * kStrip < end; ++strip) {
                const Real* y = products_.data() + strip * n_;
                for (std::int64_t c = std::max({begin, start, strip * kStrip}); c < end; ++c) wk[c] += y[c];
            }
            subtract_panel(k, begin, end, of_v, of_w, wk);
            for (std::int64_t c = begin; c < end; ++c) wk[c] *= tau;
            dots_[size(chunk)] = dot(wk, v(k), begin, end);
        });
    }

    /// x -= Σ_p v(p) * of_v[p] + w(p) * of_w[p] over [begin, end).
    void subtract_panel(std::int64_t k, std::int64_t begin, std::int64_t end, const Real* of_v, const Real* of_w,
                        Real* x) {
        if (k == 0) return;
        gemv(CblasTrans, k, end - begin, Real(-1), v(0) + begin, n_, of_v, x + begin);
        gemv(CblasTrans, k, end - begin, Real(-1), w(0) + begin, n_, of_w, x + begin);
    }

    static Real dot(const Real* x, const Real* y, std::int64_t begin, std::int64_t end) {
        Real lanes[8] = {};
        std::int64_t c = begin;
        for (; c + 8 <= end; c += 8) {
            for (std::int64_t lane = 0; lane < 8; ++lane) lanes[lane] += x[c + lane] * y[c + lane];
        }
        for (; c < end; ++c) lanes[0] += x[c] * y[c];
        Real sum = 0;
        for (const Real lane : lanes) sum += lane;
        return sum;
    }

    /// A -= Vᵀ W + Wᵀ V right of and below the panel.
    void update_rest(std::int64_t first, std::int64_t count, int member, int members) {
        const std::int64_t start = first + count;
        for_chunks(start, member, members, [&](std::int64_t, std::int64_t begin, std::int64_t end) {
            const std::int64_t rows = end - begin;
            Real* out = a_ + begin * n_ + begin;
            if (count == width_) {
                gemm(CblasTrans, CblasNoTrans, rows, n_ - begin, 2 * count, Real(-1), v(0) + begin, n_, w(0) + begin,
                     n_, Real(1), out, n_);
                return;
            }
            gemm(CblasTrans, CblasNoTrans, rows, n_ - begin, count, Real(-1), v(0) + begin, n_, w(0) + begin, n_,
                 Real(1), out, n_);
            gemm(CblasTrans, CblasNoTrans, rows, n_ - begin, count, Real(-1), w(0) + begin, n_, v(0) + begin, n_,
                 Real(1), out, n_);
        });
    }

    Real* a_;
    const std::int64_t n_;
    Tridiagonal<Real>& result_;
    const std::int64_t strips_, chunks_;
    const std::int64_t width_;    // of a panel
    std::vector<Real> panel_;     // [3 * width, n]: v, w, v
    std::vector<Real> products_;  // [strips, n]
    std::vector<double> norms_, dots_;
    std::vector<Real> overlaps_;  // [chunks, 2 * kMaxPanel]
};

}  // namespace

template <typename Real>
Tridiagonal<Real> tridiagonalise(std::vector<Real>& matrix, std::int64_t n) {
    const auto size = static_cast<std::size_t>(n);
    Tridiagonal<Real> result{std::vector<Real>(size), std::vector<Real>(size), std::vector<Real>(size)};
    Reduction<Real> reduction(matrix, n, result);
    std::optional<Barrier> barrier;
    const bool large = n >= 512;  // otherwise waiting would take longer than working
#pragma omp parallel default(none) shared(reduction, barrier) if (large)
    {
#pragma omp single
        barrier.emplace(omp_get_num_threads());
        reduction.reduce(omp_get_thread_num(), omp_get_num_threads(), *barrier);
    }
    return result;
}

template Tridiagonal<float> tridiagonalise(std::vector<float>&, std::int64_t);
template Tridiagonal<double> tridiagonalise(std::vector<double>&, std::int64_t);

}  // namespace mha2mla
