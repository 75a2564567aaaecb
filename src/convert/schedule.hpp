#pragma once
/// Work scheduling: several layers at the same time, as threads and memory allow, and copies of other tensors.

#include <cstdint>
#include <functional>
#include <string_view>
#include <vector>

#include "mha2mla/convert.hpp"

namespace mha2mla {

/// Independent pieces of work of one kind, taken in order by `workers` threads.
struct Work {
    std::string_view stage;
    std::int64_t count = 0;
    std::int64_t workers = 1;
    std::function<void(std::int64_t)> piece;
};

/// Runs all kinds of work at the same time and returns when everything is finished. The calling thread only reports: it
/// calls observer.step() for each finished piece and at least every second. After the first error or an interruption no
/// more pieces are started, the running ones finish, and the error is rethrown.
void run_side_by_side(const std::vector<Work>& works, Observer& observer);

/// The number of layers to convert at the same time, and of threads for each.
struct Schedule {
    std::int64_t layers_at_once = 1;
    int threads_per_layer = 1;
    std::uint64_t bytes = 0;  // private memory of all of them
};
/// As many layers as there are threads, if they fit the memory of `max_memory`.
/// @throws Error{usage} naming the required memory if not even one layer fits.
[[nodiscard]] Schedule plan_schedule(const ModelConfig& config, const ConversionPlan& plan, std::uint64_t max_memory,
                                     int threads);

}  // namespace mha2mla
