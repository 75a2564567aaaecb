#include "layer_cache.hpp"

#include <algorithm>

namespace mha2mla {
namespace {

/// The number of steps between two moves of the newest rows to the front of their memory.
constexpr std::int64_t kSpareRows = 16;

std::int64_t window_of(const KvCacheOptions& options) {
    return row_of(options.format).quantizer == Quantizer::none ? 0 : options.window;
}

/// Rows that are allocated for tokens of a sliding window: some more, so that they are not moved at every step.
std::int64_t old_capacity(std::int64_t capacity, std::int64_t window, std::int64_t seen) {
    const std::int64_t all = std::max<std::int64_t>(0, capacity - window);
    return seen == 0 ? all : std::min(all, seen + std::max(kSpareRows, seen / 4));
}

}  // namespace

std::int64_t recent_capacity(const KvCacheOptions& options, std::int64_t capacity) {
    const std::int64_t window = window_of(options);
    return window == 0 ? 0 : std::min(capacity, window + kSpareRows);
}

LayerCache::LayerCache(const CacheLayout& layout, const KvCacheOptions& options, std::int64_t capacity,
                       std::int64_t seen)
    : layout_(&layout),
      window_(window_of(options)),
      seen_(seen),
      old_capacity_(old_capacity(capacity, window_, seen)),
      recent_capacity_(recent_capacity(options, capacity)),
      old_(layout, options.format, options.group_size, old_capacity_),
      recent_(layout, KvCacheFormat::bf16, 1, recent_capacity_) {}

void LayerCache::append(const float* rows, std::int64_t count) {
    length_ += count;
    if (window_ == 0) return old_.append(rows, count);
    recent_.append(rows, count);
    const std::int64_t old_end = old_start_ + old_.size();
    const std::int64_t fresh = length_ - window_ - old_end;  // tokens that left the window
    if (fresh <= 0) return;
    std::vector<float> numbers(static_cast<std::size_t>(fresh * layout_->width));
    recent_.decode(old_end - recent_start(), fresh, numbers.data());
    old_.append(numbers.data(), fresh);
}

void LayerCache::settle() {
    if (seen_ > 0) {
        const std::int64_t first_seen = length_ + 1 - seen_;  // by the next query
        const std::int64_t gone = std::clamp<std::int64_t>(first_seen - old_start_, 0, old_.size());
        old_.drop_front(gone);
        old_start_ += gone;
        old_.set_capacity_at_most(old_capacity_);
    }
    if (window_ == 0) return;
    recent_.drop_front(recent_.size() - std::min(window_, length_));
    recent_.set_capacity_at_most(recent_capacity_);
}

void LayerCache::clear() {
    length_ = old_start_ = 0;
    old_.clear();
    recent_.clear();
}

}  // namespace mha2mla
