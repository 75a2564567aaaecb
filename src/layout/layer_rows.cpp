#include "layer_rows.hpp"

#include <algorithm>

namespace mha2mla {
namespace {

/// Appends the rows of one head that keep RoPE to `rope` and the others to `nope`.
void split_head(std::int64_t first_row, std::span<const std::int64_t> dims, const std::vector<std::int64_t>& kept,
                std::vector<std::int64_t>& rope, std::vector<std::int64_t>& nope) {
    const auto half = std::ssize(dims) / 2;
    for (std::int64_t place = 0; place < 2 * half; ++place) {
        const bool keeps_rope = std::binary_search(kept.begin(), kept.end(), place % half);
        (keeps_rope ? rope : nope).push_back(first_row + dims[static_cast<std::size_t>(place)]);
    }
}

}  // namespace

LayerRows layer_rows(const AttentionShape& shape, const LayerPairs& pairs, std::span<const std::int64_t> dims) {
    LayerRows rows;
    for (std::int64_t head = 0; head < shape.num_kv_heads; ++head) {
        split_head(head * shape.head_dim, dims, pairs[static_cast<std::size_t>(head)], rows.key_rope, rows.key_nope);
    }
    std::vector<std::int64_t> query_nope;
    for (std::int64_t head = 0; head < shape.num_heads; ++head) {
        split_head(head * shape.head_dim, dims, pairs[static_cast<std::size_t>(head / shape.group_size())], rows.query,
                   query_nope);
    }
    rows.query.insert(rows.query.end(), query_nope.begin(), query_nope.end());
    return rows;
}

Matrix gather_kv(const TensorView& keys, const std::vector<std::int64_t>& nope_rows, const TensorView& values) {
    const std::int64_t columns = values.cols();
    const auto nope = static_cast<std::int64_t>(nope_rows.size());
    Matrix kv(nope + values.rows(), columns);
    for (std::int64_t i = 0; i < kv.rows(); ++i) {
        const bool key = i < nope;
        const std::int64_t row = key ? nope_rows[static_cast<std::size_t>(i)] : i - nope;
        to_finite_float(key ? keys : values, static_cast<std::uint64_t>(row * columns),
                        {kv.data() + i * columns, static_cast<std::size_t>(columns)});
    }
    return kv;
}

}  // namespace mha2mla
