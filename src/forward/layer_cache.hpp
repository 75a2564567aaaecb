#pragma once
#include "kv_rows.hpp"

namespace mha2mla {

/// What one layer caches of one sequence: old tokens in the format asked for, and with a quantised format the newest
/// ones in BF16.
class LayerCache {
public:
    /// @param layout must outlive the cache.
    LayerCache(const CacheLayout& layout, const KvCacheOptions& options, std::int64_t capacity);

    /// Takes in the next tokens. Until the next settle() the rows of every token that one of them sees in BF16 are
    /// there too. @param rows [count, layout.width]
    void append(const float* rows, std::int64_t count);
    /// Lets go of what append() kept.
    void settle();
    void clear();

    [[nodiscard]] std::int64_t length() const { return length_; }
    /// Tokens [0, old().size()); a token at position p sees those before p + 1 - window().
    [[nodiscard]] const KvRows& old() const { return old_; }
    /// Tokens from recent_start() on; a token at position p sees those from p + 1 - window() to p.
    [[nodiscard]] const KvRows& recent() const { return recent_; }
    [[nodiscard]] std::int64_t recent_start() const { return length_ - recent_.size(); }
    /// 0 for formats that are not quantised.
    [[nodiscard]] std::int64_t window() const { return window_; }

private:
    const CacheLayout* layout_;
    std::int64_t window_;
    std::int64_t recent_capacity_;
    std::int64_t length_ = 0;
    KvRows old_, recent_;
};

/// Rows that are allocated for the newest tokens.
[[nodiscard]] std::int64_t recent_capacity(const KvCacheOptions& options, std::int64_t capacity);

}  // namespace mha2mla
