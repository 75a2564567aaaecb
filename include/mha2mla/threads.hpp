#pragma once
/// The number of threads. The library runs OpenMP teams whose threads call a single-threaded BLAS. Work is divided into
/// pieces whose sizes do not depend on the number of threads, so results are bit-identical for any number.

namespace mha2mla {

/// Sets the number of threads until it is destroyed, then restores the previous setting. It must be constructed and
/// destroyed on the thread that calls the library.
class ThreadScope {
public:
    /// @param threads 0 for OpenMP's default.
    /// @throws Error{io} if the system does not give the address space that so many threads need for matrix products.
    explicit ThreadScope(int threads);
    ~ThreadScope();
    ThreadScope(const ThreadScope&) = delete;
    ThreadScope& operator=(const ThreadScope&) = delete;
    ThreadScope(ThreadScope&&) = delete;
    ThreadScope& operator=(ThreadScope&&) = delete;

private:
    int openmp_before_;
    int blas_before_;
};

/// Sets the number of threads of the parallel regions that the calling thread starts from now on.
void set_team_size(int threads);

/// The number of threads that a parallel region would use now.
[[nodiscard]] int thread_count();

}  // namespace mha2mla
