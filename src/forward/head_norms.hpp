#pragma once
/// Norms of queries and keys (QK-norm) in MLA form, where a head lies in two parts: what rotates and what does not.

#include <optional>
#include <span>
#include <vector>

#include "mha2mla/matrix.hpp"
#include "mha2mla/model.hpp"
#include "rotary.hpp"

namespace mha2mla {

/// RMSNorm over the numbers of a head, or of all heads together: x / √(mean x² + eps) ∘ weight.
struct HeadNorm {
    double eps = 0;
    bool whole = false;  // over all heads together (QueryKeyNorm::whole)
    Matrix rope, nope;   // weights by head, [heads, rope_dim], [heads, nope_dim]

    [[nodiscard]] std::int64_t heads() const { return rope.rows(); }
    /// 1 / √(mean x² + eps). [tokens, heads], or [tokens, 1] where the norm is over all heads.
    /// @param rope_part, nope_part head h of a token at data + token·stride + h·step.
    [[nodiscard]] Matrix scales(std::int64_t tokens, const HeadColumns& rope_part, const HeadColumns& nope_part) const;
    /// Multiplies both parts by their scales and weights.
    void apply(const Matrix& scales, const HeadColumns& rope_part, const HeadColumns& nope_part) const;
    /// Turns derivatives by what apply() gives into those by what it was given: for y = s·x∘w with s = scales(x),
    /// dx = s·(dy∘w) − s³·x·⟨x, dy∘w⟩ / n over the n numbers that are normed together.
    void back(const Matrix& scales, const HeadColumns& rope_part, const HeadColumns& nope_part,
              const HeadColumns& d_rope, const HeadColumns& d_nope) const;
    /// The derivatives by this norm's weights, one head beside another; eps and whole as here. Call it before back().
    /// @param d_rope, d_nope by what apply() gave.
    [[nodiscard]] HeadNorm weight_gradient(const Matrix& scales, const HeadColumns& rope_part,
                                           const HeadColumns& nope_part, const HeadColumns& d_rope,
                                           const HeadColumns& d_nope) const;
    /// Adds such derivatives to those by the weight that head_norms() read: `to` is of its shape.
    void add_to_weights(const NormView& view, const AttentionShape& shape,
                        std::span<const std::vector<std::int64_t>> pairs, float* to) const;
    /// Multiplies one part of each head by its scales and weights.
    static void apply_part(const Matrix& scales, const Matrix& weights, const HeadColumns& part);
};

/// The norms of a layer's queries and keys; null where its family has none.
struct HeadNorms {
    HeadNorm query, key;
};
/// @param pairs of each KV head, which rotate; those of query heads are the same.
[[nodiscard]] std::optional<HeadNorms> head_norms(const NormView& query, const NormView& key,
                                                  const AttentionShape& shape,
                                                  std::span<const std::vector<std::int64_t>> pairs);

/// Where parts of heads lie that are side by side.
[[nodiscard]] inline HeadColumns head_columns(Matrix& x, std::int64_t heads, const HeadRows& at) {
    return {x.data() + at.first, x.cols(), heads, at.stride};
}

}  // namespace mha2mla
