// A quarter of the eigenvectors of a Gram matrix in float32 on one thread, by what LAPACK offers for them; the first is
// leading_eigenvectors(). In turns, the least of the repetitions: build/bench/bench/symmetric_eigen [REPETITIONS]
#include <lapacke.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "linalg/blas.hpp"
#include "linalg/symmetric_eigen.hpp"
#include "mha2mla/threads.hpp"

namespace {

using namespace mha2mla;

std::vector<float> gram(std::int64_t n) {
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    Matrix a = Matrix::NullaryExpr(n, 2 * n, [&] { return normal(random); });
    for (std::int64_t i = 0; i < n; ++i) a.row(i) *= 1 / std::sqrt(1.0F + static_cast<float>(i));
    std::vector<float> g(static_cast<std::size_t>(n * n));
    syrk(CblasNoTrans, n, 2 * n, 1.0F, a.data(), 2 * n, 0.0F, g.data(), n);
    return g;
}

/// By relatively robust representations, which find a subset alone. Column-major: our upper triangle is its lower one.
void by_stemr(std::vector<float>& a, std::int64_t size, std::int64_t wanted) {
    const auto n = static_cast<lapack_int>(size);
    const auto count = static_cast<lapack_int>(wanted);
    const auto entries = static_cast<std::size_t>(size);
    std::vector<float> d(entries), e(entries), tau(entries), values(entries);
    std::vector<float> z(entries * static_cast<std::size_t>(count));
    std::vector<lapack_int> support(2 * entries);
    lapack_int found = 0;
    lapack_logical accurate = 0;
    LAPACKE_ssytrd(LAPACK_COL_MAJOR, 'L', n, a.data(), n, d.data(), e.data(), tau.data());
    LAPACKE_sstemr(LAPACK_COL_MAJOR, 'V', 'I', n, d.data(), e.data(), 0, 0, n - count + 1, n, &found, values.data(),
                   z.data(), n, count, support.data(), &accurate);
    LAPACKE_sormtr(LAPACK_COL_MAJOR, 'L', 'L', 'N', n, count, a.data(), n, tau.data(), z.data(), n);
}

}  // namespace

int main(int argc, char** argv) {
    const int repetitions = argc > 1 ? std::atoi(argv[1]) : 3;
    const ThreadScope threads(1);
    std::printf("OpenBLAS kernels: %s\n", openblas_get_corename());
    for (const std::int64_t n : {384, 576, 1024, 2048}) {
        const std::int64_t count = n / 4;
        const auto original = gram(n);
        using Solver = std::function<void(std::vector<float>&)>;
        const auto order = static_cast<lapack_int>(n);
        const std::pair<const char*, Solver> solvers[] = {
            {"ssytrd, sstedc, sormtr", [&](auto& a) { (void)leading_eigenvectors(a, n, count); }},
            {"ssyevd",
             [&](auto& a) {
                 std::vector<float> w(static_cast<std::size_t>(n));
                 LAPACKE_ssyevd(LAPACK_COL_MAJOR, 'V', 'L', order, a.data(), order, w.data());
             }},
            {"ssyevr, a subset",
             [&](auto& a) {
                 std::vector<float> w(static_cast<std::size_t>(n)), z(static_cast<std::size_t>(n * count));
                 std::vector<lapack_int> support(static_cast<std::size_t>(2 * n));
                 lapack_int found = 0;
                 LAPACKE_ssyevr(LAPACK_COL_MAJOR, 'V', 'I', 'L', order, a.data(), order, 0, 0,
                                order - static_cast<lapack_int>(count) + 1, order, 0, &found, w.data(), z.data(), order,
                                support.data());
             }},
            {"ssytrd, sstemr, sormtr", [&](auto& a) { by_stemr(a, n, count); }},
        };
        std::vector<double> least(std::size(solvers), 1e9);
        for (int repetition = 0; repetition < repetitions; ++repetition) {
            for (std::size_t s = 0; s < std::size(solvers); ++s) {
                auto a = original;
                const auto start = std::chrono::steady_clock::now();
                solvers[s].second(a);
                const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
                least[s] = std::min(least[s], taken.count());
            }
        }
        for (std::size_t s = 0; s < std::size(solvers); ++s) {
            std::printf("n %4lld, %4lld wanted: %-26s %8.3f s, %.2f times the first\n", static_cast<long long>(n),
                        static_cast<long long>(count), solvers[s].first, least[s], least[s] / least[0]);
        }
    }
}
