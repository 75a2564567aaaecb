#include "cached_attention.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "../linalg/elementwise.hpp"
#include "../linalg/narrow.hpp"
#include "../linalg/parallel.hpp"

namespace mha2mla {
namespace {

constexpr std::int64_t kTile = 64;       // tokens that are unpacked at a time
constexpr std::int64_t kChunk = 512;     // tokens of an item of work where the cache is split
constexpr std::int64_t kFewQueries = 8;  // up to so many, the cache is split
constexpr std::int64_t kRows = 512;      // queries times heads of an item of work where the queries are split
constexpr float kNothing = -std::numeric_limits<float>::infinity();

std::size_t size_of(std::int64_t count) { return static_cast<std::size_t>(count); }

/// Which tokens a query at position p sees of a run of rows.
struct Visibility {
    std::int64_t start = 0;   // position of the first row
    std::int64_t window = 0;  // 0: nothing is quantised, all rows up to p
    bool recent = false;      // the rows of the window, else those before it
};

/// [first, end) of `count` rows from row `row` on.
std::pair<std::int64_t, std::int64_t> visible(const Visibility& rows, std::int64_t row, std::int64_t count,
                                              std::int64_t position) {
    const std::int64_t edge = position + 1 - rows.window - rows.start - row;
    const std::int64_t end = position + 1 - rows.start - row;
    if (!rows.recent) return {0, std::clamp<std::int64_t>(edge, 0, count)};
    return {std::clamp<std::int64_t>(edge, 0, count), std::clamp<std::int64_t>(end, 0, count)};
}

/// Running state of some queries of all heads: row = head * queries + query.
struct State {
    std::int64_t queries = 0, position = 0;  // of the first
    float* result = nullptr;                 // [rows, value_dim], not yet divided by sum
    float* maximum = nullptr;                // [rows]
    float* sum = nullptr;                    // [rows]
};

void begin(const State& state, std::int64_t rows, std::int64_t value_dim) {
    std::fill_n(state.result, rows * value_dim, 0.0F);
    std::fill_n(state.maximum, rows, kNothing);
    std::fill_n(state.sum, rows, 0.0F);
}

/// One item's loop over tiles, with its buffers.
class Tiles {
public:
    Tiles(const CacheLayout& layout, std::int64_t num_heads, const State& state, std::vector<float>& scratch)
        : layout_(&layout), num_heads_(num_heads), state_(state), rows_(num_heads * state.queries) {
        std::int64_t numbers = rows_ * kTile;
        for (const auto& segment : layout.segments) {
            if (segment.key) numbers += rows_ * segment.dim;
        }
        for (const auto& slice : layout.slices) widest_ = std::max(widest_, slice.width);
        scratch.resize(size_of(numbers + kTile * widest_));
        logits_ = scratch.data();
        tile_ = logits_ + rows_ * kTile;
        float* next = tile_ + kTile * widest_;
        for (const auto& segment : layout.segments) {
            q_.push_back(next);
            if (segment.key) next += rows_ * segment.dim;
        }
    }

    /// @param q as in AttentionQueries. @param first query of this item.
    void gather(const std::vector<const float*>& q, std::int64_t first) {
        for (std::size_t s = 0; s < layout_->segments.size(); ++s) {
            if (!layout_->segments[s].key) continue;
            const std::int64_t dim = layout_->segments[s].dim;
            for (std::int64_t head = 0; head < num_heads_; ++head) {
                for (std::int64_t i = 0; i < state_.queries; ++i) {
                    std::copy_n(q[s] + ((first + i) * num_heads_ + head) * dim, dim,
                                q_[s] + (head * state_.queries + i) * dim);
                }
            }
        }
    }

    /// Rows [first, end) of `rows`.
    void attend(const KvRows& rows, const Visibility& visibility, std::int64_t first, std::int64_t end) {
        for (; first < end; first += kTile) {
            const std::int64_t count = std::min(kTile, end - first);
            // The last query sees the farthest, and the first the earliest of a window.
            const auto last = visible(visibility, first, count, state_.position + state_.queries - 1);
            const auto earliest = visible(visibility, first, count, state_.position);
            if (last.second == 0) break;
            if (earliest.first < last.second) attend_tile(rows, visibility, first, count);
        }
    }

private:
    template <typename Visit>
    void for_heads(const CacheSlice& slice, const Visit& visit) {
        const CacheSegment& segment = layout_->segments[slice.segment];
        const std::int64_t group = rows_ / segment.heads;
        for (std::int64_t head = 0; head < slice.heads; ++head) {
            visit(segment, (slice.first_head + head) * group, group, head * segment.dim);
        }
    }

    void attend_tile(const KvRows& cache, const Visibility& visibility, std::int64_t first, std::int64_t count) {
        bool begun = false;
        MatrixIn shared{nullptr, 0};  // unpacked as a key, and used again as a value
        for (std::size_t i = 0; i < layout_->slices.size(); ++i) {
            const CacheSlice& slice = layout_->slices[i];
            if (!layout_->segments[slice.segment].key) continue;
            const MatrixIn tile = cache.slice(i, first, count, tile_);
            for_heads(slice,
                      [&](const CacheSegment& segment, std::int64_t row, std::int64_t rows, std::int64_t column) {
                          narrow_abt(rows, count, segment.dim, {q_[slice.segment] + row * segment.dim, segment.dim},
                                     {tile.data + column, tile.stride}, begun, {logits_ + row * kTile, kTile});
                      });
            if (layout_->segments[slice.segment].value) shared = tile;
            const bool last_head = slice.first_head + slice.heads == layout_->segments[slice.segment].heads;
            begun = begun || last_head;
        }
        softmax(visibility, first, count);
        for (std::size_t i = 0; i < layout_->slices.size(); ++i) {
            const CacheSlice& slice = layout_->slices[i];
            if (!layout_->segments[slice.segment].value) continue;
            const MatrixIn tile = shared.data != nullptr ? shared : cache.slice(i, first, count, tile_);
            for_heads(
                slice, [&](const CacheSegment& segment, std::int64_t row, std::int64_t rows, std::int64_t column) {
                    narrow_ab(rows, segment.dim, count, {logits_ + row * kTile, kTile},
                              {tile.data + column, tile.stride}, {state_.result + row * segment.dim, segment.dim});
                });
        }
    }

    void softmax(const Visibility& visibility, std::int64_t first, std::int64_t count) {
        const std::int64_t value_dim = layout_->value_dim();
        for (std::int64_t row = 0; row < rows_; ++row) {
            float* logits = logits_ + row * kTile;
            const auto [from, to] = visible(visibility, first, count, state_.position + row % state_.queries);
            std::fill(logits, logits + from, 0.0F);
            std::fill(logits + to, logits + count, 0.0F);
            if (from >= to) continue;
            const float factor = softmax_piece(logits + from, to - from, state_.maximum[row], state_.sum[row]);
            if (factor == 1.0F) continue;
            float* result = state_.result + row * value_dim;
            for (std::int64_t i = 0; i < value_dim; ++i) result[i] *= factor;
        }
    }

    const CacheLayout* layout_;
    std::int64_t num_heads_;
    State state_;
    std::int64_t rows_, widest_ = 0;
    float *logits_, *tile_;  // [rows, kTile]; [kTile, widest slice]
    std::vector<float*> q_;  // by segment, [rows, dim]
};

/// What one item of work is about.
struct Item {
    std::size_t sequence = 0;
    std::int64_t first_query = 0, queries = 0;
    std::int64_t first_token = 0, end_token = 0;  // of old() and then recent(), in one count
    std::int64_t state = 0;                       // its place in the items' states, in rows
};

/// result / sum, scattered to where the caller wants it. @param out of the first of the state's queries.
void write_out(const State& state, std::int64_t num_heads, std::int64_t value_dim, float* out) {
    for (std::int64_t head = 0; head < num_heads; ++head) {
        for (std::int64_t i = 0; i < state.queries; ++i) {
            const std::int64_t row = head * state.queries + i;
            const float share = 1.0F / state.sum[row];
            float* to = out + (i * num_heads + head) * value_dim;
            for (std::int64_t d = 0; d < value_dim; ++d) to[d] = state.result[row * value_dim + d] * share;
        }
    }
}

/// Brings the state of another part of the cache into `into`.
void merge(const State& from, std::int64_t rows, std::int64_t value_dim, const State& into) {
    for (std::int64_t row = 0; row < rows; ++row) {
        if (from.sum[row] == 0.0F) continue;
        const float maximum = std::max(from.maximum[row], into.maximum[row]);
        const float a = std::exp(into.maximum[row] - maximum);
        const float b = std::exp(from.maximum[row] - maximum);
        into.maximum[row] = maximum;
        into.sum[row] = into.sum[row] * a + from.sum[row] * b;
        for (std::int64_t d = 0; d < value_dim; ++d) {
            float& result = into.result[row * value_dim + d];
            result = result * a + from.result[row * value_dim + d] * b;
        }
    }
}

std::int64_t query_block(std::int64_t num_heads) { return std::max(kFewQueries, kRows / num_heads); }

}  // namespace

void cached_attention(const CacheLayout& layout, std::int64_t num_heads, std::span<const AttentionQueries> sequences) {
    const std::int64_t value_dim = layout.value_dim();
    std::vector<Item> items;
    std::int64_t states = 0;
    for (std::size_t s = 0; s < sequences.size(); ++s) {
        const AttentionQueries& sequence = sequences[s];
        const std::int64_t tokens = sequence.cache->old().size() + sequence.cache->recent().size();
        const std::int64_t chunk = sequence.count <= kFewQueries ? kChunk : tokens;
        for (std::int64_t first = 0; first < sequence.count; first += query_block(num_heads)) {
            const std::int64_t queries = std::min(query_block(num_heads), sequence.count - first);
            for (std::int64_t token = 0; token < tokens; token += chunk) {
                items.push_back({s, first, queries, token, std::min(tokens, token + chunk), states});
                states += num_heads * queries;
            }
        }
    }
    std::vector<float> memory(size_of(states * (value_dim + 2)));
    const auto state_of = [&](const Item& item) {
        const LayerCache& cache = *sequences[item.sequence].cache;
        const std::int64_t position = cache.length() - sequences[item.sequence].count + item.first_query;
        return State{item.queries, position, memory.data() + item.state * value_dim,
                     memory.data() + states * value_dim + item.state,
                     memory.data() + states * (value_dim + 1) + item.state};
    };
    // Later queries see more and take longer, so they are handed out first.
    parallel_for(static_cast<std::int64_t>(items.size()), [&](std::int64_t i, std::vector<float>& scratch) {
        const Item& item = items[items.size() - 1 - size_of(i)];
        const AttentionQueries& sequence = sequences[item.sequence];
        const LayerCache& cache = *sequence.cache;
        const State state = state_of(item);
        begin(state, num_heads * item.queries, value_dim);
        Tiles tiles(layout, num_heads, state, scratch);
        tiles.gather(sequence.q, item.first_query);
        const std::int64_t old = cache.old().size();
        tiles.attend(cache.old(), {0, cache.window(), false}, item.first_token, std::min(old, item.end_token));
        if (item.end_token > old) {
            tiles.attend(cache.recent(), {cache.recent_start(), cache.window(), true},
                         std::max<std::int64_t>(0, item.first_token - old), item.end_token - old);
        }
    });
    parallel_for(static_cast<std::int64_t>(items.size()), [&](std::int64_t i, std::vector<float>&) {
        const Item& item = items[size_of(i)];
        if (item.first_token > 0) return;
        const State state = state_of(item);
        for (std::size_t j = size_of(i) + 1; j < items.size() && items[j].first_token > 0; ++j) {
            merge(state_of(items[j]), num_heads * item.queries, value_dim, state);
        }
        write_out(state, num_heads, value_dim, sequences[item.sequence].out + item.first_query * num_heads * value_dim);
    });
}

ChunkedAttention::ChunkedAttention(const CacheLayout& layout, std::int64_t num_heads, std::int64_t count,
                                   std::int64_t position, std::vector<const float*> q)
    : layout_(&layout),
      num_heads_(num_heads),
      count_(count),
      position_(position),
      q_(std::move(q)),
      result_(size_of(count * num_heads * layout.value_dim()), 0.0F),
      maximum_(size_of(count * num_heads), kNothing),
      sum_(size_of(count * num_heads), 0.0F) {}

void ChunkedAttention::add(const KvRows& rows, std::int64_t start, std::int64_t window, bool recent) {
    const std::int64_t block = query_block(num_heads_);
    parallel_for((count_ + block - 1) / block, [&](std::int64_t item, std::vector<float>& scratch) {
        const std::int64_t first = item * block;
        const std::int64_t row = first * num_heads_;
        const State state{std::min(block, count_ - first), position_ + first,
                          result_.data() + row * layout_->value_dim(), maximum_.data() + row, sum_.data() + row};
        Tiles tiles(*layout_, num_heads_, state, scratch);
        tiles.gather(q_, first);
        tiles.attend(rows, {start, window, recent}, 0, rows.size());
    });
}

void ChunkedAttention::finish(float* out) {
    const std::int64_t block = query_block(num_heads_);
    for (std::int64_t first = 0; first < count_; first += block) {
        const std::int64_t row = first * num_heads_;
        const State state{std::min(block, count_ - first), position_ + first,
                          result_.data() + row * layout_->value_dim(), maximum_.data() + row, sum_.data() + row};
        write_out(state, num_heads_, layout_->value_dim(), out + first * num_heads_ * layout_->value_dim());
    }
}

}  // namespace mha2mla
