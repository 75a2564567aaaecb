#pragma once
#include <cstdint>
#include <exception>
#include <vector>

namespace mha2mla {

/// Calls body(i, scratch) for 0 <= i < count on an OpenMP team, which takes one item at a time. `scratch` is a buffer
/// that belongs to the thread and exists for the whole loop. The first exception is rethrown after all threads have
/// finished. A single item needs no team: a decoding step has many such loops, and waking the others takes longer.
template <typename Body>
void parallel_for(std::int64_t count, const Body& body) {
    if (count <= 1) {
        std::vector<float> scratch;
        if (count == 1) body(std::int64_t{0}, scratch);
        return;
    }
    std::exception_ptr failure;
#pragma omp parallel default(none) shared(count, body, failure)
    {
        std::vector<float> scratch;
#pragma omp for schedule(dynamic)
        for (std::int64_t i = 0; i < count; ++i) {
            try {
                body(i, scratch);
            } catch (...) {
#pragma omp critical(mha2mla_parallel_for_failure)
                if (!failure) failure = std::current_exception();
            }
        }
    }
    if (failure) std::rethrow_exception(failure);
}

}  // namespace mha2mla
