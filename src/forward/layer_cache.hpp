#pragma once
#include "kv_rows.hpp"

namespace mha2mla {

/// The cache of one layer and one sequence: old tokens in the chosen format and, if it is quantised, the newest tokens
/// in BF16. A layer with a sliding window keeps no token that no later query sees.
class LayerCache {
public:
    /// @param layout must outlive the cache. @param seen newest tokens that a query sees (AttentionRule::window); 0:
    /// all.
    LayerCache(const CacheLayout& layout, const KvCacheOptions& options, std::int64_t capacity, std::int64_t seen);

    /// Appends the next tokens. Until the next settle(), recent() also has every row that one of them attends to in
    /// BF16.
    /// @param rows [count, layout.width]
    void append(const float* rows, std::int64_t count);
    /// Discards the additional rows that append() kept, and those that left the sliding window.
    void settle();
    void clear();

    [[nodiscard]] std::int64_t length() const { return length_; }
    /// Tokens from old_start(); a token at position p attends to those before p + 1 - window().
    [[nodiscard]] const KvRows& old() const { return old_; }
    [[nodiscard]] std::int64_t old_start() const { return old_start_; }
    /// Tokens from recent_start(); a token at position p attends to those from p + 1 - window() to p.
    [[nodiscard]] const KvRows& recent() const { return recent_; }
    [[nodiscard]] std::int64_t recent_start() const { return length_ - recent_.size(); }
    /// 0 for formats that are not quantised.
    [[nodiscard]] std::int64_t window() const { return window_; }

private:
    const CacheLayout* layout_;
    std::int64_t window_, seen_;
    std::int64_t old_capacity_, recent_capacity_;
    std::int64_t old_start_ = 0;
    std::int64_t length_ = 0;
    KvRows old_, recent_;
};

/// The number of rows that are allocated for the newest tokens.
[[nodiscard]] std::int64_t recent_capacity(const KvCacheOptions& options, std::int64_t capacity);

}  // namespace mha2mla
