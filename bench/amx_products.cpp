// Products on the tiles of AMX against BLAS, in turns, each thread with matrices of its own:
//   build/bench/bench/amx_products [SECONDS [THREADS]]
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include "linalg/gemm.hpp"
#include "mha2mla/machine.hpp"
#include "mha2mla/matrix.hpp"
#include "mha2mla/threads.hpp"
#include "support/parallel.hpp"

namespace {

using namespace mha2mla;

struct Product {
    const char* what;
    std::int64_t m, n, k;
    bool transposed, bf16;  // the left factor is stored transposed; the right one's numbers are BF16, as weights are
};

Matrix normal(std::int64_t rows, std::int64_t columns, bool bf16) {
    std::mt19937 random(1);
    std::normal_distribution<float> distribution;
    return Matrix::NullaryExpr(rows, columns, [&] {
        const float x = distribution(random);
        const float far = 65536 * x;
        return bf16 ? x + far - far : x;  // of its 24 bits the first 8
    });
}

/// GFLOP/s of all threads together.
double speed(const Product& of, ProductPrecision precision, double seconds, int threads) {
    const Matrix a = of.transposed ? normal(of.k, of.m, false) : normal(of.m, of.k, false);
    const Matrix b = normal(of.n, of.k, of.bf16);
    std::vector<double> done(static_cast<std::size_t>(threads));
    using Clock = std::chrono::steady_clock;
    const auto start = Clock::now();
    const auto passed = [&] { return std::chrono::duration<double>(Clock::now() - start).count(); };
    parallel_for(threads, [&](std::int64_t thread, std::vector<float>&) {
        const Matrix left = a, right = b;
        Matrix c(of.m, of.n);
        double& products = done[static_cast<std::size_t>(thread)];
        do {
            multiply(of.m, of.n, of.k, 1, {{left.data(), left.cols()}, of.transposed},
                     {{right.data(), right.cols()}, true}, 0, {c.data(), c.cols()}, precision);
            ++products;
        } while (passed() < seconds);
    });
    double all = 0;
    for (const double products : done) all += products;
    return 2e-9 * all * static_cast<double>(of.m * of.n * of.k) / passed();
}

}  // namespace

int main(int argc, char** argv) {
    const double seconds = argc > 1 ? std::atof(argv[1]) : 3;
    const int threads = argc > 2 ? std::atoi(argv[2]) : thread_count();
    const ThreadScope scope(threads);
    if (!has_amx()) return std::puts("no AMX here, or it is forbidden"), 1;
    std::printf("| m x n x k, on each of %d threads | AMX GFLOP/s | BLAS GFLOP/s | ratio |\n|---|---|---|---|\n",
                threads);
    for (const Product& of :
         {Product{"BF16 weights", 512, 512, 576, false, true}, Product{"BF16 weights", 512, 576, 1536, false, true},
          Product{"float32", 512, 512, 120, false, false},
          Product{"left factor transposed", 128, 1080, 2048, true, false}}) {
        const double tiles = speed(of, ProductPrecision::split, seconds, threads);
        const double blas = speed(of, ProductPrecision::full, seconds, threads);
        std::printf("| %lld x %lld x %lld, %s | %.0f | %.0f | %.1f |\n", static_cast<long long>(of.m),
                    static_cast<long long>(of.n), static_cast<long long>(of.k), of.what, tiles, blas, tiles / blas);
    }
    return 0;
}
