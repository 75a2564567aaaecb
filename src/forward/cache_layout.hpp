#pragma once
#include <cstdint>
#include <vector>

#include "mha2mla/model.hpp"

namespace mha2mla {

/// A part of a token's cached numbers. Each of its heads belongs to an equal share of the query heads; a latent has one
/// head.
struct CacheSegment {
    std::int64_t heads = 0, dim = 0;
    bool key = false;    // adds q·k to the logits
    bool value = false;  // weighted by the softmax; true of exactly one segment
    bool scale = false;  // each head's number multiplies the logits of the segment before it; always float32
};

/// Adjacent heads of a segment that are stored and unpacked together.
struct CacheSlice {
    std::size_t segment = 0;
    std::int64_t first_head = 0, heads = 0;
    std::int64_t column = 0, width = 0;  // in a token's numbers
};

struct CacheLayout {
    std::vector<CacheSegment> segments;
    std::vector<CacheSlice> slices;
    std::int64_t width = 0;  // numbers of a token
    [[nodiscard]] std::int64_t value_dim() const;
};

/// The cached numbers of a layer of this model: keys and values, or rotated keys and latents.
/// @param group_size no group of a segment is split between slices.
[[nodiscard]] CacheLayout cache_layout(const ModelConfig& config, std::int64_t group_size);
/// Keys and values of a converted model when both are computed from the latent: rotated keys, NoPE keys, values.
[[nodiscard]] CacheLayout expanded_layout(const ModelConfig& config);

}  // namespace mha2mla
