#pragma once
/// Who does what when: layers side by side as threads and memory allow, copies behind them.

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

/// Runs all kinds of work at the same time and returns when all is done. The calling thread only reports: it calls
/// observer.step() after finished pieces and at least every second. The first error, or an interruption, lets the
/// pieces that are running finish, starts no more and is thrown again.
void run_side_by_side(const std::vector<Work>& works, Observer& observer);

/// Layers to convert at once and threads for each.
struct Schedule {
    std::int64_t layers_at_once = 1;
    int threads_per_layer = 1;
    std::uint64_t bytes = 0;  // private memory that this takes
};
/// As many layers as there are threads, if they fit the memory of `options`.
/// @throws Error{usage} saying how much is needed if not even one layer does.
[[nodiscard]] Schedule plan_schedule(const ModelConfig& config, const ConvertOptions& options, int threads);

}  // namespace mha2mla
