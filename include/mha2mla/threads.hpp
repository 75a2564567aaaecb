#pragma once
/// One number governs all parallelism: OpenMP teams of this library, each calling BLAS single-threaded. Work is cut
/// into pieces whose sizes do not depend on that number, so that results are the same bits whatever it is.

namespace mha2mla {

/// Sets the number of threads for as long as it lives, then restores what was set before. Needs to live on the
/// thread that calls the library.
class ThreadScope {
public:
    /// @param threads 0: as many as OpenMP would use.
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

/// Limits the parallel regions that the calling thread starts from now on.
void set_team_size(int threads);

/// Threads that a parallel region would use now.
[[nodiscard]] int thread_count();

}  // namespace mha2mla
