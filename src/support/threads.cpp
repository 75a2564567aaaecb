#include "mha2mla/threads.hpp"

#include <cblas.h>
#include <omp.h>

namespace mha2mla {

ThreadScope::ThreadScope(int threads)
    : openmp_before_(omp_get_max_threads()), blas_before_(openblas_get_num_threads()) {
    openblas_set_num_threads(1);
    if (threads > 0) omp_set_num_threads(threads);
}

ThreadScope::~ThreadScope() {
    omp_set_num_threads(openmp_before_);
    openblas_set_num_threads(blas_before_);
}

void set_team_size(int threads) { omp_set_num_threads(threads); }

int thread_count() { return omp_get_max_threads(); }

}  // namespace mha2mla
