#include <algorithm>

#include "mha2mla/layout.hpp"

namespace mha2mla {

std::int64_t LatentShape::rope_keys() const { return layout->shared_rope_key ? 1 : num_kv_heads; }

std::int64_t LatentShape::up_heads() const { return layout->shared_rope_key ? num_heads : num_kv_heads; }

std::int64_t LatentShape::nope_dim() const {
    if (own_nope_dim > 0) return own_nope_dim;
    return layout->shared_rope_key ? head_dim : head_dim - rope_dim;
}

LatentShape LatentShape::with_query_head_keys() const {
    LatentShape shape = *this;
    shape.value_heads = num_kv_heads;
    shape.num_kv_heads = num_heads;
    return shape;
}

LatentWidths LatentShape::widths() const {
    const FactorizationRow& row = row_of(factorization);
    const std::int64_t rank = latents() * kv_rank;
    if (row.shared) return {rank, rank, rank};
    const std::int64_t part = row.halves_rank() ? rank / 2 : rank;
    LatentWidths widths{row.key ? part : 0, row.value ? part : 0, 0};
    widths.cached = (row.key ? part : nope_rows()) + (row.value ? part : value_rows());
    return widths;
}

std::optional<std::int64_t> LatentShape::largest_kv_rank() const {
    const FactorizationRow& row = row_of(factorization);
    const auto largest = [this](std::int64_t rows) { return std::min(rows, hidden) / latents(); };
    if (row.shared) return largest(nope_rows() + value_rows() / heads_per_value());
    const std::int64_t values = value_rows() / heads_per_value();
    if (row.halves_rank()) return 2 * largest(std::min(nope_rows(), values));
    if (row.key) return largest(nope_rows());
    if (row.value) return largest(values);
    return std::nullopt;
}

}  // namespace mha2mla
