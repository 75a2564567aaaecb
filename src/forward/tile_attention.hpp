#pragma once
#include <limits>
#include <vector>

#include "kv_rows.hpp"
#include "packed_queries.hpp"

namespace mha2mla {

/// The tokens of a range of rows that a query at position p attends to.
struct Visibility {
    std::int64_t start = 0;   // position of the first row
    std::int64_t window = 0;  // 0: not quantised, all rows up to p
    bool recent = false;      // the rows of the window, otherwise those before it
};

/// The running softmax of several queries of all heads: row = head * queries + query.
struct AttentionState {
    std::int64_t queries = 0, position = 0;  // position of the first query
    float* result = nullptr;                 // [rows, value_dim], not yet divided by sum
    float* maximum = nullptr;                // [state_rows]
    float* sum = nullptr;                    // [state_rows]
};
/// The number of rows of a state.
[[nodiscard]] constexpr std::int64_t state_rows(std::int64_t num_heads, std::int64_t queries) {
    return panels_of(num_heads * queries) * kPanelRows;
}

/// Initialises a state without tokens.
void begin(const AttentionState& state, std::int64_t num_heads, std::int64_t value_dim);
/// Merges the state of another part of the cache into `into`.
void merge(const AttentionState& from, std::int64_t rows, std::int64_t value_dim, const AttentionState& into);
/// Writes result / sum to the output of the caller. @param out output of the first query of the state.
void write_out(const AttentionState& state, std::int64_t num_heads, std::int64_t value_dim, float* out);

/// Adds the tokens [first, end) of `rows` to the state, tile by tile, with the rule's soft-cap and window. @param
/// scratch of the calling thread.
void attend_tiles(const CacheLayout& layout, std::int64_t num_heads, const PackedQueries& queries, const KvRows& rows,
                  const Visibility& visibility, const AttentionRule& rule, std::int64_t first, std::int64_t end,
                  const AttentionState& state, std::vector<float>& scratch);

}  // namespace mha2mla
