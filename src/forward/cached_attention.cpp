#include "cached_attention.hpp"

#include <algorithm>
#include <memory>
#include <optional>

#include "../support/parallel.hpp"

namespace mha2mla {
namespace {

constexpr std::int64_t kChunk = 256;     // tokens per work item if the cache is split
constexpr std::int64_t kFewQueries = 8;  // largest number of queries for which the cache is split
constexpr std::int64_t kRows = 512;      // queries times heads per work item if the queries are split

std::size_t size_of(std::int64_t count) { return static_cast<std::size_t>(count); }

/// Queries of a sequence that are processed together, in the forms that its cache needs.
struct QueryBlock {
    std::size_t sequence = 0;
    std::int64_t first = 0, count = 0;
    std::optional<PackedQueries> old, recent;
};

/// One work item.
struct Item {
    std::size_t block = 0;
    std::int64_t first_token = 0, end_token = 0;  // tokens of old() and then recent(), counted together
    std::int64_t state = 0;                       // its first row in the states of all items
};

std::int64_t query_block(std::int64_t num_heads) { return std::max(kFewQueries, kRows / num_heads); }

const TileArithmetic& arithmetic_of(const KvRows& rows) {
    return rows.bf16() && bf16_tiles() != nullptr ? *bf16_tiles() : float_tiles();
}

}  // namespace

void cached_attention(const CacheLayout& layout, std::int64_t num_heads, std::span<const AttentionQueries> sequences,
                      const AttentionRule& rule) {
    const std::int64_t value_dim = layout.value_dim();
    std::vector<QueryBlock> blocks;
    std::vector<Item> items;
    std::int64_t states = 0;
    for (std::size_t s = 0; s < sequences.size(); ++s) {
        const AttentionQueries& sequence = sequences[s];
        const std::int64_t tokens = sequence.cache->old().size() + sequence.cache->recent().size();
        const std::int64_t chunk = sequence.count <= kFewQueries ? kChunk : tokens;
        for (std::int64_t first = 0; first < sequence.count; first += query_block(num_heads)) {
            const std::int64_t queries = std::min(query_block(num_heads), sequence.count - first);
            for (std::int64_t token = 0; token < tokens; token += chunk) {
                items.push_back({blocks.size(), token, std::min(tokens, token + chunk), states});
                states += state_rows(num_heads, queries);
            }
            blocks.push_back({s, first, queries, {}, {}});
        }
    }
    parallel_for(static_cast<std::int64_t>(blocks.size()), [&](std::int64_t i, std::vector<float>&) {
        QueryBlock& block = blocks[size_of(i)];
        const AttentionQueries& sequence = sequences[block.sequence];
        const auto pack = [&](const KvRows& rows, std::optional<PackedQueries>& packed) {
            packed.emplace(layout, arithmetic_of(rows), num_heads, sequence.q, block.first, block.count);
        };
        pack(sequence.cache->old(), block.old);
        if (sequence.cache->recent().size() > 0) pack(sequence.cache->recent(), block.recent);
    });
    // Each item initialises its own part.
    const auto memory = std::make_unique_for_overwrite<float[]>(size_of(states * (value_dim + 2)));
    const auto state_of = [&](const Item& item) {
        const QueryBlock& block = blocks[item.block];
        const AttentionQueries& sequence = sequences[block.sequence];
        return AttentionState{block.count, sequence.cache->length() - sequence.count + block.first,
                              memory.get() + item.state * value_dim, memory.get() + states * value_dim + item.state,
                              memory.get() + states * (value_dim + 1) + item.state};
    };
    // Later queries attend to more tokens and take longer, so they are started first.
    parallel_for(static_cast<std::int64_t>(items.size()), [&](std::int64_t i, std::vector<float>& scratch) {
        const Item& item = items[items.size() - 1 - size_of(i)];
        const QueryBlock& block = blocks[item.block];
        const LayerCache& cache = *sequences[block.sequence].cache;
        const AttentionState state = state_of(item);
        begin(state, num_heads, value_dim);
        const std::int64_t old = cache.old().size();
        attend_tiles(layout, num_heads, *block.old, cache.old(), {cache.old_start(), cache.window(), false}, rule,
                     item.first_token, std::min(old, item.end_token), state, scratch);
        if (item.end_token > old) {
            attend_tiles(layout, num_heads, *block.recent, cache.recent(), {cache.recent_start(), cache.window(), true},
                         rule, std::max<std::int64_t>(0, item.first_token - old), item.end_token - old, state, scratch);
        }
    });
    parallel_for(static_cast<std::int64_t>(items.size()), [&](std::int64_t i, std::vector<float>&) {
        const Item& item = items[size_of(i)];
        if (item.first_token > 0) return;
        const QueryBlock& block = blocks[item.block];
        const AttentionState state = state_of(item);
        for (std::size_t j = size_of(i) + 1; j < items.size() && items[j].first_token > 0; ++j) {
            merge(state_of(items[j]), num_heads * block.count, value_dim, state);
        }
        write_out(state, num_heads, value_dim, sequences[block.sequence].out + block.first * num_heads * value_dim);
    });
}

ChunkedAttention::ChunkedAttention(const CacheLayout& layout, std::int64_t num_heads, std::int64_t count,
                                   std::int64_t position, const std::vector<const float*>& q, const AttentionRule& rule)
    : layout_(&layout),
      num_heads_(num_heads),
      count_(count),
      position_(position),
      block_(query_block(num_heads)),
      rule_(rule) {
    const std::int64_t blocks = (count + block_ - 1) / block_;
    result_.resize(size_of(blocks * block_ * num_heads * layout.value_dim()));
    maximum_.resize(size_of(blocks * state_rows(num_heads, block_)));
    sum_.resize(maximum_.size());
    for (std::int64_t block = 0; block < blocks; ++block) {
        queries_.emplace_back(layout, float_tiles(), num_heads, q, block * block_,
                              std::min(block_, count - block * block_));
        begin(state(block), num_heads, layout.value_dim());
    }
}

AttentionState ChunkedAttention::state(std::int64_t block) {
    const std::int64_t first = block * block_;
    const std::int64_t row = block * state_rows(num_heads_, block_);
    return {std::min(block_, count_ - first), position_ + first,
            result_.data() + first * num_heads_ * layout_->value_dim(), maximum_.data() + row, sum_.data() + row};
}

void ChunkedAttention::add(const KvRows& rows, std::int64_t start, std::int64_t window, bool recent) {
    parallel_for(static_cast<std::int64_t>(queries_.size()), [&](std::int64_t block, std::vector<float>& scratch) {
        attend_tiles(*layout_, num_heads_, queries_[size_of(block)], rows, {start, window, recent}, rule_, 0,
                     rows.size(), state(block), scratch);
    });
}

void ChunkedAttention::finish(float* out) {
    for (std::int64_t block = 0; block < static_cast<std::int64_t>(queries_.size()); ++block) {
        write_out(state(block), num_heads_, layout_->value_dim(),
                  out + block * block_ * num_heads_ * layout_->value_dim());
    }
}

}  // namespace mha2mla
