#pragma once
#include <cmath>
#include <limits>
#include <vector>

#include "kv_rows.hpp"
#include "packed_queries.hpp"

namespace mha2mla {

/// Which tokens a query at position p sees of a run of rows.
struct Visibility {
    std::int64_t start = 0;   // position of the first row
    std::int64_t window = 0;  // 0: nothing is quantised, all rows up to p
    bool recent = false;      // the rows of the window, else those before it
};

/// Running softmax of some queries of all heads: row = head * queries + query.
struct AttentionState {
    std::int64_t queries = 0, position = 0;  // of the first
    float* result = nullptr;                 // [rows, value_dim], not yet divided by sum
    float* maximum = nullptr;                // [state_rows]
    float* sum = nullptr;                    // [state_rows]
};
/// Rows for which a state has room.
[[nodiscard]] constexpr std::int64_t state_rows(std::int64_t num_heads, std::int64_t queries) {
    return panels_of(num_heads * queries) * kPanelRows;
}

/// Nothing seen yet.
void begin(const AttentionState& state, std::int64_t num_heads, std::int64_t value_dim);
/// Brings the state of another part of the cache into `into`.
void merge(const AttentionState& from, std::int64_t rows, std::int64_t value_dim, const AttentionState& into);
/// result / sum, scattered to where the caller wants it. @param out of the first of the state's queries.
void write_out(const AttentionState& state, std::int64_t num_heads, std::int64_t value_dim, float* out);

/// Takes the tokens [first, end) of `rows` into the state, tile by tile. @param scratch of the calling thread.
void attend_tiles(const CacheLayout& layout, std::int64_t num_heads, const PackedQueries& queries, const KvRows& rows,
                  const Visibility& visibility, std::int64_t first, std::int64_t end, const AttentionState& state,
                  std::vector<float>& scratch);

}  // namespace mha2mla
