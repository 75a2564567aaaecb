#pragma once
/// The dims of a head as a conversion orders them, whatever a family does.

#include <cstdint>
#include <vector>

#include "../layout/layer_rows.hpp"
#include "mha2mla/architecture.hpp"
#include "mha2mla/matrix.hpp"
#include "mha2mla/model.hpp"

namespace mha2mla {

/// Every dim of a head belongs to a pair: those that rotate come first, in the order of their frequencies; the others
/// are pairs that turn by nothing. Pair k is dims (k, k + head_dim/2) of the order, as in Llama.
struct HeadOrder {
    std::vector<std::int64_t> dims;  // of the family's head, by place in the order
    std::int64_t rotated_dims = 0;   // of the family's head, the leading ones
    float gain = 1;                  // of the logits of what rotates: the square of RotaryRule::gain
    float row_gain = 1;              // of rows of queries, for that gain; 1 where a norm would take it away again

    /// Queries or keys of all heads with their columns in this order, [tokens, heads * head_dim].
    [[nodiscard]] Matrix columns(const Matrix& x) const;
    /// Queries in this order, with the gain.
    [[nodiscard]] Matrix query_columns(const Matrix& x) const;
    /// Multiplies rows of queries by row_gain, in the family's order. @param queries [heads * head_dim, any]
    void take_gain(Eigen::Ref<Matrix> queries) const;
};
/// @throws Error{unsupported} for an odd number of dims beside the rotated ones.
[[nodiscard]] HeadOrder head_order(const RotaryRule& rule, std::int64_t head_dim);

[[nodiscard]] HeadOrder head_order(const Model& model, std::int64_t layer);
[[nodiscard]] LayerRows layer_rows(const Model& model, std::int64_t layer, const LayerPairs& pairs);

/// The rule of heads in that order, whose queries took the gain: head_dim/2 pairs, some of frequency 0.
[[nodiscard]] RotaryRule ordered_rule(const RotaryRule& rule, std::int64_t head_dim);
/// The attention of such heads: where queries are normed, its scale has the gain of the rotation, which turns all dims.
[[nodiscard]] AttentionRule ordered_attention(const LayerRules& rules);

}  // namespace mha2mla
