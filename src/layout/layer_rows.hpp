#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "mha2mla/checkpoint.hpp"
#include "mha2mla/layout.hpp"
#include "mha2mla/matrix.hpp"

namespace mha2mla {

/// Row numbers of one layer's projections in the order of the reference layout and of LatentWeights: within a head
/// ascending in its order of dims, so that first halves come before second halves.
struct LayerRows {
    std::vector<std::int64_t> query;     // all heads' RoPE rows, then all heads' NoPE rows
    std::vector<std::int64_t> key_rope;  // all KV heads
    std::vector<std::int64_t> key_nope;
};

/// @param pairs the kept pairs of each KV head, ascending. Query heads use those of their KV head.
/// @param dims of the source's heads, by their place in the order (HeadOrder::dims); pair k is places k and
///        k + head_dim/2.
[[nodiscard]] LayerRows layer_rows(const AttentionShape& shape, const LayerPairs& pairs,
                                   std::span<const std::int64_t> dims);

/// The NoPE key rows above the value rows, straight from the file. [nope_rows.size() + value rows, hidden]
/// @throws Error{numeric} naming the first element that is not finite.
[[nodiscard]] Matrix gather_kv(const TensorView& keys, const std::vector<std::int64_t>& nope_rows,
                               const TensorView& values);

}  // namespace mha2mla
