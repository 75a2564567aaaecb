#pragma once
#include <span>

#include "layer_cache.hpp"
#include "tile_attention.hpp"

namespace mha2mla {

/// The newest tokens of one sequence as queries. `cache` contains their rows as well.
struct AttentionQueries {
    const LayerCache* cache = nullptr;
    std::int64_t count = 0;       // the last `count` tokens of the cache
    std::vector<const float*> q;  // by segment, [count, num_heads * dim], times the rule's scale; null if not a key
    float* out = nullptr;         // [count, num_heads * layout.value_dim()]
};

/// softmax(cap(Σ_segments q·kᵀ)) v over all tokens of the cache that each query attends to, with the rule's soft-cap
/// and window.
///
/// The cache is read once: a block of its tokens is unpacked, and all query heads attend to it with a running softmax
/// (FlashAttention, Dao et al. 2022). Few queries are distributed over the cores by splitting the cache, whose
/// parts are combined at the end; many queries by splitting the queries. Neither depends on the number of threads.
void cached_attention(const CacheLayout& layout, std::int64_t num_heads, std::span<const AttentionQueries> sequences,
                      const AttentionRule& rule = {});

/// Attention of many queries of one sequence, which takes keys and values chunk by chunk.
class ChunkedAttention {
public:
    /// @param layout must outlive this object. @param q as in AttentionQueries. @param position of the first query.
    ChunkedAttention(const CacheLayout& layout, std::int64_t num_heads, std::int64_t count, std::int64_t position,
                     const std::vector<const float*>& q, const AttentionRule& rule = {});
    /// Attends to the tokens from position `start`. The query at position p attends to those with
    /// p + 1 - window <= position <= p if `recent`, else those before p + 1 - window.
    void add(const KvRows& rows, std::int64_t start, std::int64_t window, bool recent);
    /// @param out [count, num_heads * value_dim]
    void finish(float* out);

private:
    [[nodiscard]] AttentionState state(std::int64_t block);

    const CacheLayout* layout_;
    std::int64_t num_heads_, count_, position_, block_;
    AttentionRule rule_;
    std::vector<PackedQueries> queries_;         // by block of queries
    std::vector<float> result_, maximum_, sum_;  // block after block, as the loops leave them
};

}  // namespace mha2mla
