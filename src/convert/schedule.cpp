#include "schedule.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>

#include "../latent/guided_layer.hpp"
#include "mha2mla/error.hpp"
#include "mha2mla/memory.hpp"
#include "mha2mla/threads.hpp"

namespace mha2mla {
namespace {

/// What the workers tell the calling thread.
struct Progress {
    std::mutex mutex;
    std::condition_variable changed;
    std::vector<std::int64_t> done;  // of each kind of work
    std::int64_t running = 0;        // workers
    std::exception_ptr failure;
    std::atomic<bool> stop = false;
};

void work_through(const Work& work, std::size_t kind, std::atomic<std::int64_t>& next, Progress& progress) {
    try {
        while (!progress.stop) {
            const std::int64_t piece = next++;
            if (piece >= work.count) break;
            work.piece(piece);
            const std::lock_guard lock(progress.mutex);
            ++progress.done[kind];
            progress.changed.notify_one();
        }
    } catch (...) {
        const std::lock_guard lock(progress.mutex);
        if (!progress.failure) progress.failure = std::current_exception();
        progress.stop = true;
    }
    const std::lock_guard lock(progress.mutex);
    --progress.running;
    progress.changed.notify_one();
}

/// The program itself, and what each thread of BLAS keeps for packing.
constexpr std::uint64_t kBaseBytes = 40'000'000;
constexpr std::uint64_t kThreadBytes = 8'000'000;

/// Of what convert_layer() holds at a time: the matrix to factorise and the decomposition of its Gram matrix.
std::uint64_t layer_bytes(const ModelConfig& config, const StagedPlan& stages) {
    const auto hidden = static_cast<std::uint64_t>(config.hidden_size);
    const auto heads = static_cast<std::uint64_t>(config.num_key_value_heads);
    const auto head_dim = static_cast<std::uint64_t>(config.head_dim);
    const auto rows = heads * (2 * head_dim - static_cast<std::uint64_t>(stages.rope.rope_dim));
    const auto queries = static_cast<std::uint64_t>(config.num_attention_heads) * head_dim * hidden;
    const std::uint64_t matrix = sizeof(float) * rows * hidden;
    const bool whole = stages.factorization == Factorization::none;
    const std::uint64_t factors = whole ? matrix : svd_bytes(rows, hidden);
    return std::max(sizeof(float) * queries,
                    matrix + factors + (stages.guided() ? guiding_bytes(config, stages.kv_rank) : 0));
}

}  // namespace

void run_side_by_side(const std::vector<Work>& works, Observer& observer) {
    Progress progress;
    progress.done.resize(works.size());
    std::vector<std::atomic<std::int64_t>> next(works.size());
    std::vector<std::jthread> threads;
    for (std::size_t kind = 0; kind < works.size(); ++kind) {
        const std::int64_t workers = std::min(works[kind].workers, works[kind].count);
        for (std::int64_t i = 0; i < workers; ++i) {
            const std::lock_guard lock(progress.mutex);
            ++progress.running;
            threads.emplace_back([&, kind] { work_through(works[kind], kind, next[kind], progress); });
        }
    }
    std::vector<std::int64_t> reported(works.size(), -1);  // -1: not even that the work begins
    std::unique_lock lock(progress.mutex);
    while (progress.running > 0 || (!progress.stop && reported != progress.done)) {
        const auto done = progress.done;
        lock.unlock();
        std::exception_ptr interruption;
        try {
            for (std::size_t kind = 0; kind < works.size(); ++kind) {
                const auto report = [&] { observer.step(works[kind].stage, reported[kind], works[kind].count); };
                if (reported[kind] == done[kind] && !progress.stop) report();
                while (reported[kind] < done[kind] && !progress.stop) {
                    ++reported[kind];
                    report();
                }
            }
        } catch (...) {
            interruption = std::current_exception();
        }
        lock.lock();
        if (interruption) {
            progress.stop = true;
            if (!progress.failure) progress.failure = interruption;
        }
        // An interruption only shows when it is asked for, so the wait has an end.
        if (progress.running > 0 && progress.done == done) progress.changed.wait_for(lock, std::chrono::seconds(1));
    }
    lock.unlock();
    threads.clear();
    if (progress.failure) std::rethrow_exception(progress.failure);
    for (const Work& work : works) observer.step(work.stage, work.count, work.count);
}

namespace {

/// Layers are aligned one after the other, so there is nothing to choose.
Schedule aligned_schedule(const ModelConfig& config, const AlignRequest& request, std::uint64_t max_memory,
                          std::uint64_t base) {
    const std::uint64_t needed = base + align_bytes(config, request);
    const std::int64_t tokens = request.windows * request.seq_len;
    const bool refused = max_memory > 0 && needed > max_memory;
    const std::uint64_t allowed = refused ? max_memory : available_memory();
    if (needed > allowed) {
        throw Error(refused ? ErrorCode::usage : ErrorCode::io,
                    "aligning on " + std::to_string(tokens) + " tokens needs " + memory_text(needed) +
                        " of memory, but only " + memory_text(allowed) + (refused ? " are allowed" : " are available"),
                    refused ? Remedy::less_text_or_more_memory : Remedy::less_text);
    }
    return {1, thread_count(), needed};
}

}  // namespace

Schedule plan_schedule(const ModelConfig& config, const ConversionPlan& plan, std::uint64_t max_memory, int threads) {
    const std::uint64_t base = kBaseBytes + kThreadBytes * static_cast<std::uint64_t>(threads);
    if (plan.aligned() != nullptr) return aligned_schedule(config, *plan.aligned(), max_memory, base);
    const StagedPlan& stages = *plan.staged();
    const std::uint64_t layer = layer_bytes(stages.selected_heads(config), stages);
    const std::uint64_t needed = base + layer;
    const std::uint64_t budget = max_memory > 0 ? max_memory : default_convert_memory(config);
    if (max_memory > 0 && needed > budget) {
        throw Error(ErrorCode::usage,
                    "converting one layer needs " + memory_text(needed) + " of memory, but only " +
                        memory_text(budget) + " are allowed",
                    Remedy::more_memory);
    }
    if (needed > available_memory()) {
        throw Error(ErrorCode::io,
                    "converting one layer needs " + memory_text(needed) + " of memory, but only " +
                        memory_text(available_memory()) + " are available",
                    Remedy::fewer_threads);
    }
    const std::uint64_t room = std::min(budget, available_memory());
    const std::uint64_t fit =
        std::max<std::uint64_t>(1, (std::max(room, base) - base) / std::max<std::uint64_t>(1, layer));
    Schedule schedule;
    schedule.layers_at_once = std::min<std::int64_t>(
        {threads, config.num_hidden_layers, static_cast<std::int64_t>(std::min<std::uint64_t>(fit, 1U << 16U))});
    schedule.threads_per_layer = static_cast<int>(threads / schedule.layers_at_once);
    schedule.bytes = base + static_cast<std::uint64_t>(schedule.layers_at_once) * layer;
    return schedule;
}

std::uint64_t default_convert_memory(const ModelConfig& config) {
    const auto width = static_cast<std::uint64_t>(config.head_dim) * static_cast<std::uint64_t>(config.hidden_size);
    const auto heads = static_cast<std::uint64_t>(2 * config.num_attention_heads + 2 * config.num_key_value_heads);
    return 2 * sizeof(float) * heads * width + 200'000'000;
}

}  // namespace mha2mla
