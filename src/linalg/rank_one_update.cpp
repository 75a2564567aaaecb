#include "rank_one_update.hpp"

#include <lapacke.h>

#include <Eigen/Eigenvalues>
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>

#include "../support/parallel.hpp"
#include "blas.hpp"
#include "mha2mla/error.hpp"

// Root i of a secular equation. LAPACK exports the two routines, but its C interface does not declare them.
extern "C" {
void slaed4_(const lapack_int* n, const lapack_int* i, const float* d, const float* z, float* delta, const float* rho,
             float* root, lapack_int* info);
void dlaed4_(const lapack_int* n, const lapack_int* i, const double* d, const double* z, double* delta,
             const double* rho, double* root, lapack_int* info);
}

namespace mha2mla {
namespace {

constexpr std::int64_t kRoots = 32;     // that one thread finds together
constexpr std::int64_t kVectors = 128;  // that one thread makes together

void laed4(lapack_int n, lapack_int i, const float* d, const float* z, float* delta, float rho, float* root,
           lapack_int* info) {
    slaed4_(&n, &i, d, z, delta, &rho, root, info);
}
void laed4(lapack_int n, lapack_int i, const double* d, const double* z, double* delta, double rho, double* root,
           lapack_int* info) {
    dlaed4_(&n, &i, d, z, delta, &rho, root, info);
}

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

/// An eigenvector of the two pieces: its parts in the left and the right one, null for zeros.
template <typename Real>
struct SplitVector {
    Real* left;
    Real* right;
};

/// What is left of diag(d) + rho z·zᵀ when the eigenpairs that it shares with diag(d) are taken out, by rotating
/// vectors of close values where that helps (Dongarra and Sorensen 1987).
template <typename Real>
class Deflation {
public:
    Deflation(EigenPiece<Real>& left, EigenPiece<Real>& right, Real coupling)
        : left_size_(left.vectors.cols()), right_size_(right.vectors.cols()), rho_(2 * std::abs(coupling)) {
        const std::int64_t n = left_size_ + right_size_;
        d_ = left.values;
        d_.insert(d_.end(), right.values.begin(), right.values.end());
        const Real share = std::sqrt(Real(0.5));
        for (std::int64_t i = 0; i < left_size_; ++i) {
            vectors_.push_back({left.vectors.row(i).data(), nullptr});
            z_.push_back(share * left.vectors(i, left_size_ - 1));
        }
        for (std::int64_t i = 0; i < right_size_; ++i) {
            vectors_.push_back({nullptr, right.vectors.row(i).data()});
            z_.push_back(std::copysign(share, coupling) * right.vectors(i, 0));
        }
        std::vector<std::int64_t> rising(at(n));
        std::iota(rising.begin(), rising.end(), 0);
        std::stable_sort(rising.begin(), rising.end(),
                         [&](std::int64_t i, std::int64_t j) { return d_[at(i)] < d_[at(j)]; });
        deflate(rising);
    }

    [[nodiscard]] const std::vector<std::int64_t>& kept() const { return kept_; }          // by rising value
    [[nodiscard]] const std::vector<std::int64_t>& deflated() const { return deflated_; }  // in no order
    [[nodiscard]] Real value(std::int64_t i) const { return d_[at(i)]; }
    [[nodiscard]] Real z(std::int64_t i) const { return z_[at(i)]; }
    [[nodiscard]] Real rho() const { return rho_; }
    [[nodiscard]] const SplitVector<Real>& vector(std::int64_t i) const { return vectors_[at(i)]; }
    [[nodiscard]] std::int64_t left_size() const { return left_size_; }
    [[nodiscard]] std::int64_t right_size() const { return right_size_; }

private:
    void deflate(const std::vector<std::int64_t>& rising) {
        const auto largest = [](const std::vector<Real>& x) {
            return std::accumulate(x.begin(), x.end(), Real(0),
                                   [](Real a, Real b) { return std::max(a, std::abs(b)); });
        };
        const Real unit = std::numeric_limits<Real>::epsilon() / 2;
        const Real tolerance = 8 * unit * std::max(largest(d_), largest(z_));
        std::int64_t before = -1;
        for (const std::int64_t i : rising) {
            if (rho_ * std::abs(z_[at(i)]) <= tolerance) {
                deflated_.push_back(i);
                continue;
            }
            if (before >= 0) {
                const Real length = std::hypot(z_[at(i)], z_[at(before)]);
                const Real c = z_[at(i)] / length;
                const Real s = -z_[at(before)] / length;
                if (std::abs((d_[at(i)] - d_[at(before)]) * c * s) <= tolerance) {
                    rotate(before, i, c, s, length);
                    deflated_.push_back(before);
                } else {
                    kept_.push_back(before);
                }
            }
            before = i;
        }
        if (before >= 0) kept_.push_back(before);
    }

    /// Turns the vectors so that z of the first becomes 0.
    void rotate(std::int64_t first, std::int64_t second, Real c, Real s, Real length) {
        z_[at(first)] = 0;
        z_[at(second)] = length;
        const Real d_first = d_[at(first)];
        const Real d_second = d_[at(second)];
        d_[at(first)] = d_first * c * c + d_second * s * s;
        d_[at(second)] = d_first * s * s + d_second * c * c;
        rotate_part(vectors_[at(first)].left, vectors_[at(second)].left, left_size_, c, s);
        rotate_part(vectors_[at(first)].right, vectors_[at(second)].right, right_size_, c, s);
    }
    void rotate_part(Real*& x, Real*& y, std::int64_t size, Real c, Real s) {
        if (x == nullptr && y == nullptr) return;
        for (Real** part : {&x, &y}) {
            if (*part == nullptr) *part = filled_in_.emplace_back(at(size), Real(0)).data();
        }
        for (std::int64_t i = 0; i < size; ++i) {
            const Real turned = c * x[i] + s * y[i];
            y[i] = c * y[i] - s * x[i];
            x[i] = turned;
        }
    }

    std::int64_t left_size_, right_size_;
    Real rho_;
    std::vector<Real> d_, z_;
    std::vector<SplitVector<Real>> vectors_;
    std::deque<std::vector<Real>> filled_in_;  // parts that were zeros before a rotation
    std::vector<std::int64_t> kept_, deflated_;
};

/// Eigenvalues of diag(d) + rho z·zᵀ without common eigenpairs, and its eigenvectors as they are asked for. A root is
/// held as its distance from the nearest pole, which keeps its distances from all of them accurate.
template <typename Real>
class Secular {
public:
    Secular(std::vector<Real> d, const std::vector<Real>& z, Real rho)
        : size_(static_cast<std::int64_t>(d.size())), d_(std::move(d)), pole_(at(size_)), offset_(at(size_)), z_(z) {
        if (size_ <= 2) {
            solve_small(z, rho);
        } else {
            solve(rho);
        }
    }

    [[nodiscard]] Real root(std::int64_t i) const {
        return size_ <= 2 ? small_values_[i] : d_[at(pole_[at(i)])] + offset_[at(i)];
    }

    /// @param places of the entries of the vector in `to`, by entry.
    void vector(std::int64_t i, const std::vector<std::int64_t>& places, Real* to) const {
        if (size_ <= 2) {
            for (std::int64_t j = 0; j < size_; ++j) to[places[at(j)]] = small_vectors_(j, i);
            return;
        }
        const Real pole = d_[at(pole_[at(i)])];
        const Real offset = offset_[at(i)];
        double norm = 0;
        for (std::int64_t j = 0; j < size_; ++j) {
            const Real entry = z_[at(j)] / ((d_[at(j)] - pole) - offset);
            norm += static_cast<double>(entry) * entry;
            to[places[at(j)]] = entry;
        }
        const auto scale = static_cast<Real>(1 / std::sqrt(norm));
        for (std::int64_t j = 0; j < size_; ++j) to[places[at(j)]] *= scale;
    }

private:
    void solve(Real rho) {
        std::vector<lapack_int> infos(at(size_));
        Real z_norm = 0;
        for (const Real x : z_) z_norm += x * x;
        z_norm = std::sqrt(z_norm);
        for (Real& x : z_) x /= z_norm;  // laed4 wants a unit vector
        const Real weight = rho * z_norm * z_norm;
        parallel_for((size_ + kRoots - 1) / kRoots, [&](std::int64_t chunk, std::vector<float>&) {
            std::vector<Real> delta(at(size_));
            for (std::int64_t i = chunk * kRoots; i < std::min(size_, (chunk + 1) * kRoots); ++i) {
                Real root = 0;
                laed4(static_cast<lapack_int>(size_), static_cast<lapack_int>(i + 1), d_.data(), z_.data(),
                      delta.data(), weight, &root, &infos[at(i)]);
                // Root i lies between the poles i and i + 1; the last one has no pole above it.
                const std::int64_t above = std::min(i + 1, size_ - 1);
                pole_[at(i)] = std::abs(delta[at(i)]) <= std::abs(delta[at(above)]) ? i : above;
                offset_[at(i)] = -delta[at(pole_[at(i)])];
            }
        });
        for (std::int64_t i = 0; i < size_; ++i) {
            if (infos[at(i)] != 0) {
                throw Error(ErrorCode::numeric, "eigenvalue decomposition failed: LAPACK laed4 returned " +
                                                    std::to_string(infos[at(i)]) + " for root " + std::to_string(i));
            }
        }
        replace_z();
    }

    void solve_small(const std::vector<Real>& z, Real rho) {
        small_vectors_.resize(size_, size_);
        for (std::int64_t i = 0; i < size_; ++i) {
            for (std::int64_t j = 0; j < size_; ++j) {
                small_vectors_(i, j) = rho * z[at(i)] * z[at(j)] + (i == j ? d_[at(i)] : Real(0));
            }
        }
        if (size_ == 0) return;
        const Eigen::SelfAdjointEigenSolver<SmallMatrix> solver(small_vectors_);
        small_values_ = solver.eigenvalues();
        small_vectors_ = solver.eigenvectors();
    }

    /// The z for which the roots are exact, so that the vectors are orthogonal however inexact they are (Gu and
    /// Eisenstat 1994): z(j)² ~ Π_i (root(i) - d(j)) / Π_{i≠j} (d(i) - d(j)).
    void replace_z() {
        parallel_for((size_ + kRoots - 1) / kRoots, [&](std::int64_t chunk, std::vector<float>&) {
            const std::int64_t first = chunk * kRoots;
            const std::int64_t count = std::min(kRoots, size_ - first);
            Real product[kRoots];
            std::fill_n(product, kRoots, Real(1));
            for (std::int64_t i = 0; i < size_; ++i) {
                const Real pole = d_[at(pole_[at(i)])];
                const Real value = d_[at(i)];
                for (std::int64_t j = 0; j < count; ++j) {
                    const Real own = d_[at(first + j)];
                    const Real gap = first + j == i ? Real(1) : value - own;
                    product[j] *= ((pole - own) + offset_[at(i)]) / gap;
                }
            }
            for (std::int64_t j = 0; j < count; ++j) {
                z_[at(first + j)] = std::copysign(std::sqrt(std::abs(product[j])), z_[at(first + j)]);
            }
        });
    }

    using SmallMatrix = Eigen::Matrix<Real, Eigen::Dynamic, Eigen::Dynamic>;
    std::int64_t size_;
    std::vector<Real> d_;             // rising
    std::vector<std::int64_t> pole_;  // the nearest to each root
    std::vector<Real> offset_;        // of each root from it
    std::vector<Real> z_;
    SmallMatrix small_vectors_;  // only where there are two at most
    Eigen::Matrix<Real, Eigen::Dynamic, 1> small_values_;
};

/// The kept vectors' parts, those in the left piece together and those in the right one, so that vectors of the sum are
/// two products. Entries of an eigenvector of the rank-one update are ordered accordingly: only left, both, only right.
template <typename Real>
struct GatheredParts {
    RowMajor<Real> left, right;
    std::vector<std::int64_t> places;  // of each kept vector's entry
    std::int64_t first_right = 0;      // place of the first entry that belongs to `right`

    explicit GatheredParts(const Deflation<Real>& deflation) : places(deflation.kept().size()) {
        const auto& kept = deflation.kept();
        const auto kind = [&](std::int64_t i) {
            const auto& vector = deflation.vector(i);
            return vector.right == nullptr ? 0 : vector.left != nullptr ? 1 : 2;
        };
        std::int64_t ends[3] = {};
        for (const std::int64_t i : kept) ++ends[kind(i)];
        first_right = ends[0];
        ends[1] += ends[0];
        ends[2] += ends[1];
        left.resize(ends[1], deflation.left_size());
        right.resize(ends[2] - ends[0], deflation.right_size());
        std::int64_t next[3] = {0, ends[0], ends[1]};
        for (std::size_t k = 0; k < kept.size(); ++k) {
            const auto& vector = deflation.vector(kept[k]);
            const std::int64_t place = places[k] = next[kind(kept[k])]++;
            if (vector.left != nullptr) std::copy_n(vector.left, left.cols(), left.row(place).data());
            if (vector.right != nullptr) {
                std::copy_n(vector.right, right.cols(), right.row(place - first_right).data());
            }
        }
    }
};

}  // namespace

template <typename Real>
EigenPiece<Real> merge_pieces(EigenPiece<Real> left, EigenPiece<Real> right, Real coupling, std::int64_t count) {
    const Deflation<Real> deflation(left, right, coupling);
    const auto& kept = deflation.kept();
    const auto& deflated = deflation.deflated();
    std::vector<Real> d, z;
    for (const std::int64_t i : kept) {
        d.push_back(deflation.value(i));
        z.push_back(deflation.z(i));
    }
    const Secular<Real> secular(std::move(d), z, deflation.rho());

    // All eigenpairs by rising value: first the kept ones by number, then the deflated ones.
    const auto kept_count = static_cast<std::int64_t>(kept.size());
    const auto n = kept_count + static_cast<std::int64_t>(deflated.size());
    const auto value = [&](std::int64_t i) {
        return i < kept_count ? secular.root(i) : deflation.value(deflated[at(i - kept_count)]);
    };
    std::vector<std::int64_t> rising(at(n));
    std::iota(rising.begin(), rising.end(), 0);
    std::stable_sort(rising.begin(), rising.end(), [&](auto i, auto j) { return value(i) < value(j); });

    EigenPiece<Real> result;
    for (const std::int64_t i : rising) result.values.push_back(value(i));
    result.vectors.resize(count, n);
    const GatheredParts<Real> parts(deflation);
    parallel_for((count + kVectors - 1) / kVectors, [&](std::int64_t tile, std::vector<float>&) {
        const std::int64_t first = tile * kVectors;
        const std::int64_t rows = std::min(kVectors, count - first);
        RowMajor<Real> inner = RowMajor<Real>::Zero(rows, kept_count);
        for (std::int64_t row = 0; row < rows; ++row) {
            const std::int64_t i = rising[at(n - count + first + row)];
            if (i < kept_count) secular.vector(i, parts.places, inner.row(row).data());
        }
        Real* out = result.vectors.row(first).data();
        gemm(CblasNoTrans, CblasNoTrans, rows, parts.left.cols(), parts.left.rows(), Real(1), inner.data(), kept_count,
             parts.left.data(), parts.left.cols(), Real(0), out, n);
        gemm(CblasNoTrans, CblasNoTrans, rows, parts.right.cols(), parts.right.rows(), Real(1),
             inner.data() + parts.first_right, kept_count, parts.right.data(), parts.right.cols(), Real(0),
             out + parts.left.cols(), n);
        for (std::int64_t row = 0; row < rows; ++row) {
            const std::int64_t i = rising[at(n - count + first + row)];
            if (i < kept_count) continue;
            const SplitVector<Real>& vector = deflation.vector(deflated[at(i - kept_count)]);
            if (vector.left != nullptr) std::copy_n(vector.left, parts.left.cols(), out + row * n);
            if (vector.right != nullptr) {
                std::copy_n(vector.right, parts.right.cols(), out + row * n + parts.left.cols());
            }
        }
    });
    return result;
}

template EigenPiece<float> merge_pieces(EigenPiece<float>, EigenPiece<float>, float, std::int64_t);
template EigenPiece<double> merge_pieces(EigenPiece<double>, EigenPiece<double>, double, std::int64_t);

}  // namespace mha2mla
