#include "mha2mla/threads.hpp"

#include <cblas.h>
#include <omp.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <string>

#include "mha2mla/error.hpp"
#include "mha2mla/memory.hpp"

// Of OpenBLAS, which exports them without a header. Weak: another BLAS may not have them.
extern "C" {
[[gnu::weak]] void* blas_memory_alloc(int position);
[[gnu::weak]] void blas_memory_free(void* buffer);
}

namespace mha2mla {
namespace {

/// What OpenBLAS maps for each thread that calls it, and a thread for its stack.
constexpr std::size_t kBlasBuffer = std::size_t{128} << 20U;
constexpr std::size_t kStack = std::size_t{8} << 20U;
constexpr int kMostBuffers = 64;  // of those taken beforehand; OpenBLAS has more, but not any number

bool is_limited(decltype(RLIMIT_AS) resource) {
    rlimit limit{};
    return ::getrlimit(resource, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY;
}

/// OpenBLAS asks for the buffer of a thread again and again until it gets it, so one that cannot be had must be found
/// out before, and be taken before anything else takes its place.
void reserve_buffers(int threads) {
    const std::size_t bytes = static_cast<std::size_t>(threads) * (kBlasBuffer + kStack);
    void* trial = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (trial == MAP_FAILED) {
        throw Error(ErrorCode::io,
                    "out of memory: " + std::to_string(threads) + (threads == 1 ? " thread needs " : " threads need ") +
                        memory_text(bytes) +
                        " of address space for matrix products, which the system refuses; raise its limit (ulimit -v)",
                    Remedy::fewer_threads);
    }
    ::munmap(trial, bytes);
    if (!is_limited(RLIMIT_AS) && !is_limited(RLIMIT_DATA)) return;
    if (blas_memory_alloc == nullptr || blas_memory_free == nullptr) return;
    std::array<void*, kMostBuffers> buffers{};
    const auto count = static_cast<std::size_t>(std::min(threads, kMostBuffers));
    for (std::size_t i = 0; i < count; ++i) buffers.at(i) = blas_memory_alloc(0);
    for (std::size_t i = 0; i < count; ++i) blas_memory_free(buffers.at(i));  // they stay OpenBLAS's
}

/// The environment may ask for more threads than a process can have. More than a few for each processor are of no use.
int default_threads() { return std::min(omp_get_max_threads(), std::max(64, 4 * omp_get_num_procs())); }

}  // namespace

ThreadScope::ThreadScope(int threads)
    : openmp_before_(omp_get_max_threads()), blas_before_(openblas_get_num_threads()) {
    const int asked = threads > 0 ? threads : default_threads();
    reserve_buffers(asked);
    openblas_set_num_threads(1);
    omp_set_num_threads(asked);
}

ThreadScope::~ThreadScope() {
    omp_set_num_threads(openmp_before_);
    openblas_set_num_threads(blas_before_);
}

void set_team_size(int threads) { omp_set_num_threads(threads); }

int thread_count() { return omp_get_max_threads(); }

}  // namespace mha2mla
