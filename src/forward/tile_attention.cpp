#include "tile_attention.hpp"

#include <algorithm>
#include <cmath>

#include "softmax.hpp"

namespace mha2mla {
namespace {

constexpr std::int64_t kTile = 64;  // tokens that are unpacked at a time
constexpr std::int64_t kStep = 8;   // tokens that are prefetched at a time, even
constexpr std::int64_t kLine = 16;  // floats of a line of the processor's cache
constexpr float kLowest = std::numeric_limits<float>::lowest();
constexpr float kHidden = -std::numeric_limits<float>::infinity();

/// [first, end) of `count` rows from row `row` on.
std::pair<std::int64_t, std::int64_t> visible(const Visibility& rows, const AttentionRule& rule, std::int64_t row,
                                              std::int64_t count, std::int64_t position) {
    const std::int64_t begin = first_visible(rule, position) - rows.start - row;
    const std::int64_t edge = position + 1 - rows.window - rows.start - row;
    const std::int64_t end = position + 1 - rows.start - row;
    const auto inside = [&](std::int64_t at) { return std::clamp<std::int64_t>(at, 0, count); };
    if (!rows.recent) return {inside(begin), inside(edge)};
    return {inside(std::max(begin, edge)), inside(end)};
}

/// Processes a range of rows; owns the buffers.
class Tiles {
public:
    Tiles(const CacheLayout& layout, std::int64_t num_heads, const PackedQueries& queries, const KvRows& cache,
          const AttentionRule& rule, const AttentionState& state, std::vector<float>& scratch)
        : layout_(&layout),
          rule_(rule),
          queries_(&queries),
          cache_(&cache),
          state_(state),
          rows_(num_heads * state.queries),
          stride_(state_rows(num_heads, state.queries)) {
        std::int64_t widest = 0;
        for (const auto& slice : layout.slices) widest = std::max(widest, slice.width);
        const std::int64_t tile = (kTile * widest + kLine - 1) / kLine * kLine;
        scratch.resize(static_cast<std::size_t>(stride_ * (kTile + 1) + 3 * tile + kLine));
        const std::size_t past_line = reinterpret_cast<std::uintptr_t>(scratch.data()) / sizeof(float) % kLine;
        logits_ = scratch.data() + (kLine - past_line) % kLine;
        factors_ = logits_ + stride_ * kTile;
        tile_ = factors_ + stride_;
        values_ = tile_ + tile;
        keys_ = values_ + tile;
    }

    void attend(const Visibility& visibility, std::int64_t first, std::int64_t end) {
        for (; first < end; first += kTile) {
            const std::int64_t count = std::min(kTile, end - first);
            // The last query attends to the latest tokens, and the first the earliest of a window.
            const auto last = visible(visibility, rule_, first, count, state_.position + state_.queries - 1);
            const auto earliest = visible(visibility, rule_, first, count, state_.position);
            if (last.second == 0) break;
            if (earliest.first < last.second) attend_tile(visibility, first, count);
        }
    }

private:
    void attend_tile(const Visibility& visibility, std::int64_t first, std::int64_t count) {
        const TileArithmetic& arithmetic = queries_->arithmetic();
        const MatrixOut logits{logits_, stride_};
        std::fill_n(logits_, count * stride_, 0.0F);
        TileIn shared{nullptr, 0};                 // unpacked as a key, and used again as a value
        for (const bool scaled : {true, false}) {  // logits that are scaled come before others are added
            for (std::size_t i = 0; i < layout_->slices.size(); ++i) {
                const CacheSlice& slice = layout_->slices[i];
                if (!layout_->segments[slice.segment].key || is_scaled(slice) != scaled) continue;
                const TileIn tile = cache_->tile(i, first, count, arithmetic, shared.data == nullptr ? tile_ : keys_);
                for_steps(i, first, count, [&](std::int64_t t, std::int64_t tokens) {
                    queries_->add_logits(slice, tokens, {tile.data + t * tile.stride, tile.stride},
                                         {logits_ + t * stride_, stride_});
                });
                if (layout_->segments[slice.segment].value) shared = tile;
            }
            if (scaled) scale_logits(first, count);
        }
        if (rule_.softcap > 0) soft_cap(rule_.softcap, count * stride_, logits_);
        hide(visibility, first, count);
        if (arithmetic.softmax(count, stride_, logits, state_.maximum, state_.sum, factors_)) rescale();
        for (std::size_t i = 0; i < layout_->slices.size(); ++i) {
            const CacheSlice& slice = layout_->slices[i];
            const CacheSegment& segment = layout_->segments[slice.segment];
            if (!segment.value) continue;
            TileIn values = shared;
            if (shared.data == nullptr) values = cache_->tile(i, first, count, arithmetic, tile_);
            values = prepare(shared.data == nullptr, i, first, count, values);
            const std::int64_t group = rows_ / segment.heads;
            for (std::int64_t head = 0; head < slice.heads; ++head) {
                const std::int64_t row = (slice.first_head + head) * group;
                arithmetic.weigh(count, group, segment.dim, {logits_ + row, stride_}, values, head * segment.dim,
                                 {state_.result + row * segment.dim, segment.dim});
            }
        }
    }

    [[nodiscard]] bool is_scaled(const CacheSlice& slice) const {
        return slice.segment + 1 < layout_->segments.size() && layout_->segments[slice.segment + 1].scale;
    }

    /// Multiplies the logits of every row by the number of its head, where there are such numbers.
    void scale_logits(std::int64_t first, std::int64_t count) {
        for (std::size_t i = 0; i < layout_->slices.size(); ++i) {
            const CacheSlice& slice = layout_->slices[i];
            const CacheSegment& segment = layout_->segments[slice.segment];
            if (!segment.scale) continue;
            const MatrixIn scales = cache_->slice(i, first, count, nullptr);  // in place
            const std::int64_t group = rows_ / segment.heads;
            for (std::int64_t t = 0; t < count; ++t) {
                for (std::int64_t head = 0; head < slice.heads; ++head) {
                    const float scale = scales.data[t * scales.stride + head];
                    float* row = logits_ + t * stride_ + (slice.first_head + head) * group;
                    for (std::int64_t r = 0; r < group; ++r) row[r] *= scale;
                }
            }
        }
    }

    /// Calls step(t, tokens) for consecutive groups of tokens. If tokens are multiplied in place, it prefetches those
    /// of the next tile, because they are read in parts, by head, which the processor does not predict.
    template <typename Step>
    void for_steps(std::size_t slice, std::int64_t first, std::int64_t count, const Step& step) {
        if (queries_->arithmetic().number_bytes != 2) return step(0, count);
        for (std::int64_t t = 0; t < count; t += kStep) {
            cache_->prefetch(slice, first + kTile + t, kStep);
            step(t, std::min(kStep, count - t));
        }
    }

    TileIn prepare(bool fresh, std::size_t slice, std::int64_t first, std::int64_t count, const TileIn& tile) {
        const TileArithmetic& arithmetic = queries_->arithmetic();
        const std::int64_t width = layout_->slices[slice].width;
        TileIn values{nullptr, 0};
        const auto step = [&](std::int64_t t, std::int64_t tokens) {
            const TileIn part =
                arithmetic.prepare_values(tokens, width, {tile.data + t * tile.stride, tile.stride},
                                          reinterpret_cast<std::byte*>(values_) + t * width * arithmetic.number_bytes);
            if (t == 0) values = part;
        };
        if (fresh) {
            for_steps(slice, first, count, step);
        } else {
            step(0, count);
        }
        return values;
    }

    void hide(const Visibility& visibility, std::int64_t first, std::int64_t count) {
        for (std::int64_t query = 0; query < state_.queries; ++query) {
            const auto [from, to] = visible(visibility, rule_, first, count, state_.position + query);
            for (std::int64_t t = 0; t < count; ++t) {
                if (t >= from && t < to) continue;
                for (std::int64_t row = query; row < rows_; row += state_.queries) logits_[t * stride_ + row] = kHidden;
            }
        }
    }

    void rescale() {
        const std::int64_t value_dim = layout_->value_dim();
        for (std::int64_t row = 0; row < rows_; ++row) {
            if (factors_[row] == 1.0F) continue;
            float* result = state_.result + row * value_dim;
            for (std::int64_t i = 0; i < value_dim; ++i) result[i] *= factors_[row];
        }
    }

    const CacheLayout* layout_;
    AttentionRule rule_;
    const PackedQueries* queries_;
    const KvRows* cache_;
    AttentionState state_;
    std::int64_t rows_, stride_;
    float *logits_, *factors_;       // [kTile, stride]; [stride]
    float *tile_, *values_, *keys_;  // [kTile, widest slice]
};

}  // namespace

void begin(const AttentionState& state, std::int64_t num_heads, std::int64_t value_dim) {
    std::fill_n(state.result, num_heads * state.queries * value_dim, 0.0F);
    std::fill_n(state.maximum, state_rows(num_heads, state.queries), kLowest);
    std::fill_n(state.sum, state_rows(num_heads, state.queries), 0.0F);
}

void merge(const AttentionState& from, std::int64_t rows, std::int64_t value_dim, const AttentionState& into) {
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

void write_out(const AttentionState& state, std::int64_t num_heads, std::int64_t value_dim, float* out) {
    for (std::int64_t head = 0; head < num_heads; ++head) {
        for (std::int64_t i = 0; i < state.queries; ++i) {
            const std::int64_t row = head * state.queries + i;
            const float share = 1.0F / state.sum[row];
            float* to = out + (i * num_heads + head) * value_dim;
            for (std::int64_t d = 0; d < value_dim; ++d) to[d] = state.result[row * value_dim + d] * share;
        }
    }
}

void attend_tiles(const CacheLayout& layout, std::int64_t num_heads, const PackedQueries& queries, const KvRows& rows,
                  const Visibility& visibility, const AttentionRule& rule, std::int64_t first, std::int64_t end,
                  const AttentionState& state, std::vector<float>& scratch) {
    if (first < end) Tiles(layout, num_heads, queries, rows, rule, state, scratch).attend(visibility, first, end);
}

}  // namespace mha2mla
