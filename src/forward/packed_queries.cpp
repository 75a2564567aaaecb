#include "packed_queries.hpp"

#include <algorithm>

namespace mha2mla {
namespace {

/// Whether queries are multiplied as panels. A panel contains several KV heads, so a token's numbers of one head are
/// also multiplied by zeros in the rows of the others; without panels dot products are summed across a vector, at about
/// three additions each.
bool worth_panels(std::int64_t group, const CacheSegment& segment) {
    if (segment.dim % 2 != 0) return false;
    const std::int64_t heads = std::min(segment.heads, (kPanelRows + group - 1) / group);
    const std::int64_t vectors = (segment.dim + kPanelRows - 1) / kPanelRows;
    return heads * segment.dim <= (vectors + 3) * kPanelRows;
}

}  // namespace

PackedQueries::Heads PackedQueries::heads_of_panel(std::int64_t panel, std::int64_t group) const {
    return {panel * kPanelRows / group, (std::min(rows_, (panel + 1) * kPanelRows) + group - 1) / group};
}

PackedQueries::PackedQueries(const CacheLayout& layout, const TileArithmetic& arithmetic, std::int64_t num_heads,
                             const std::vector<const float*>& q, std::int64_t first, std::int64_t queries)
    : layout_(&layout), arithmetic_(&arithmetic), rows_(num_heads * queries), segments_(layout.segments.size()) {
    const std::int64_t panels = panels_of(rows_);
    std::int64_t bytes = 0;
    for (std::size_t s = 0; s < segments_.size(); ++s) {
        const CacheSegment& segment = layout.segments[s];
        if (!segment.key) continue;
        const std::int64_t group = rows_ / segment.heads;
        segments_[s].panels = worth_panels(group, segment);
        if (segments_[s].panels) {
            std::int64_t most = 0;
            for (std::int64_t panel = 0; panel < panels; ++panel) {
                const Heads heads = heads_of_panel(panel, group);
                most = std::max(most, heads.end - heads.first);
            }
            segments_[s].panel_bytes = most * segment.dim * kPanelRows * arithmetic.number_bytes;
            bytes += panels * segments_[s].panel_bytes;
        } else {
            bytes += (rows_ * segment.dim * arithmetic.number_bytes + 63) / 64 * 64;
        }
    }
    memory_.resize(static_cast<std::size_t>(bytes));
    std::byte* next = memory_.data();
    std::vector<float> head_rows;
    for (std::size_t s = 0; s < segments_.size(); ++s) {
        const CacheSegment& segment = layout.segments[s];
        if (!segment.key) continue;
        segments_[s].data = next;
        const std::int64_t dim = segment.dim;
        const std::int64_t group = rows_ / segment.heads;
        head_rows.resize(static_cast<std::size_t>(rows_ * dim));
        for (std::int64_t row = 0; row < rows_; ++row) {
            std::copy_n(q[s] + ((first + row % queries) * num_heads + row / queries) * dim, dim,
                        head_rows.data() + row * dim);
        }
        if (!segments_[s].panels) {
            arithmetic.convert(head_rows.data(), rows_ * dim, next);
            next += (rows_ * dim * arithmetic.number_bytes + 63) / 64 * 64;
            continue;
        }
        for (std::int64_t panel = 0; panel < panels; ++panel, next += segments_[s].panel_bytes) {
            const Heads heads = heads_of_panel(panel, group);
            for (std::int64_t head = heads.first; head < heads.end; ++head) {
                const std::int64_t from = std::max(head * group, panel * kPanelRows);
                const std::int64_t to = std::min((head + 1) * group, (panel + 1) * kPanelRows);
                arithmetic.pack(to - from, dim, {head_rows.data() + from * dim, dim}, from - panel * kPanelRows,
                                next + (head - heads.first) * dim * kPanelRows * arithmetic.number_bytes);
            }
        }
    }
}

void PackedQueries::add_logits(const CacheSlice& slice, std::int64_t tokens, TileIn tile, MatrixOut logits) const {
    const Segment& packed = segments_[slice.segment];
    const CacheSegment& segment = layout_->segments[slice.segment];
    const std::int64_t group = rows_ / segment.heads;
    const std::int64_t bytes = arithmetic_->number_bytes;
    const std::int64_t end_head = slice.first_head + slice.heads;
    if (!packed.panels) {
        for (std::int64_t head = slice.first_head; head < end_head; ++head) {
            arithmetic_->row_logits(
                tokens, group, segment.dim, {tile.data + (head - slice.first_head) * segment.dim * bytes, tile.stride},
                packed.data + head * group * segment.dim * bytes, {logits.data + head * group, logits.stride});
        }
        return;
    }
    const std::int64_t last_panel = panels_of(std::min(rows_, end_head * group));
    for (std::int64_t panel = slice.first_head * group / kPanelRows; panel < last_panel;) {
        const Heads heads = heads_of_panel(panel, group);
        std::int64_t count = 1;
        while (panel + count < last_panel && heads_of_panel(panel + count, group) == heads) ++count;
        const std::int64_t from = std::max(heads.first, slice.first_head);
        const std::int64_t to = std::min(heads.end, end_head);
        arithmetic_->panel_logits(
            tokens, count, (to - from) * segment.dim,
            {tile.data + (from - slice.first_head) * segment.dim * bytes, tile.stride},
            packed.data + panel * packed.panel_bytes + (from - heads.first) * segment.dim * kPanelRows * bytes,
            packed.panel_bytes, {logits.data + panel * kPanelRows, logits.stride});
        panel += count;
    }
}

}  // namespace mha2mla
