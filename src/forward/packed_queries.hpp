#pragma once
#include <Eigen/Core>
#include <vector>

#include "attend.hpp"
#include "cache_layout.hpp"

namespace mha2mla {

/// Queries of all heads, in the order in which the loops over a tile of the cache use them.
/// Row = head * queries + query, so that the queries of a KV head are adjacent.
class PackedQueries {
public:
    /// @param layout, arithmetic must outlive the queries.
    /// @param q by segment, [.., num_heads * dim]; null if not a key. @param first index of the first query.
    PackedQueries(const CacheLayout& layout, const TileArithmetic& arithmetic, std::int64_t num_heads,
                  const std::vector<const float*>& q, std::int64_t first, std::int64_t queries);

    [[nodiscard]] const TileArithmetic& arithmetic() const { return *arithmetic_; }
    /// logits[t, row] += tile[t]·q[row] for the heads of a slice. @param tile [tokens, slice.width]
    void add_logits(const CacheSlice& slice, std::int64_t tokens, TileIn tile, MatrixOut logits) const;

private:
    struct Segment {
        bool panels = false;              // otherwise rows
        std::int64_t panel_bytes = 0;     // size of a panel
        const std::byte* data = nullptr;  // panels, each for the heads whose rows it has; or [rows, dim]
    };
    struct Heads {
        std::int64_t first, end;
        bool operator==(const Heads&) const = default;
    };
    [[nodiscard]] Heads heads_of_panel(std::int64_t panel, std::int64_t group) const;

    const CacheLayout* layout_;
    const TileArithmetic* arithmetic_;
    std::int64_t rows_;
    std::vector<Segment> segments_;
    std::vector<std::byte, Eigen::aligned_allocator<std::byte>> memory_;
};

}  // namespace mha2mla
