#include "cache_layout.hpp"

#include <algorithm>

namespace mha2mla {
namespace {

constexpr std::int64_t kSliceWidth = 256;  // wider slices are cut where they can be

/// Heads of a slice: as few as give whole groups and a width worth the calls.
std::int64_t slice_heads(const CacheSegment& segment, std::int64_t group_size) {
    std::int64_t heads = segment.heads;
    while (heads % 2 == 0 && heads * segment.dim > kSliceWidth && heads / 2 * segment.dim % group_size == 0) heads /= 2;
    return heads;
}

CacheLayout with_slices(std::vector<CacheSegment> segments, std::int64_t group_size) {
    CacheLayout layout;
    for (const auto& segment : segments) {
        if (segment.dim == 0) continue;
        const std::int64_t heads = slice_heads(segment, group_size);
        for (std::int64_t first = 0; first < segment.heads; first += heads) {
            layout.slices.push_back({layout.segments.size(), first, heads, layout.width, heads * segment.dim});
            layout.width += heads * segment.dim;
        }
        layout.segments.push_back(segment);
    }
    return layout;
}

}  // namespace

std::int64_t CacheLayout::value_dim() const {
    return std::find_if(segments.begin(), segments.end(), [](const auto& segment) { return segment.value; })->dim;
}

CacheLayout cache_layout(const ModelConfig& config, std::int64_t group_size) {
    const std::int64_t kv_heads = config.num_key_value_heads;
    if (!config.latent) {
        return with_slices({{kv_heads, config.head_dim, true, false}, {kv_heads, config.head_dim, false, true}},
                           group_size);
    }
    const LatentShape shape = config.latent_shape();
    const LatentWidths widths = shape.widths();
    const CacheSegment rotated{shape.rope_keys(), shape.rope_dim, true, false};
    const CacheSegment scales{shape.key_scales(), shape.key_scales() > 0 ? 1 : 0, false, false, true};
    if (shares_latent(shape.factorization)) {
        return with_slices({rotated, {1, widths.key, shape.nope_dim() > 0, true}, scales}, group_size);
    }
    CacheSegment key{kv_heads, shape.nope_dim(), true, false};
    if (widths.key > 0 && key.dim > 0) key = {1, widths.key, true, false};
    CacheSegment value{kv_heads, config.head_dim, false, true};
    if (widths.value > 0) value = {1, widths.value, false, true};
    return with_slices({rotated, key, scales, value}, group_size);
}

CacheLayout expanded_layout(const ModelConfig& config) {
    const LatentShape shape = config.latent_shape();
    return with_slices({{shape.rope_keys(), shape.rope_dim, true, false},
                        {shape.up_heads(), shape.nope_dim(), true, false},
                        {shape.up_heads(), shape.head_dim, false, true}},
                       1);
}

}  // namespace mha2mla
