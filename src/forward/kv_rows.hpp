#pragma once
#include <Eigen/Core>
#include <cstddef>
#include <vector>

#include "attend.hpp"
#include "cache_layout.hpp"
#include "mha2mla/kv_cache.hpp"

namespace mha2mla {

/// The cached numbers of consecutive tokens of one layer, packed, slice by slice. Copying copies the numbers.
class KvRows {
public:
    /// @param layout must outlive the rows. @param capacity tokens.
    KvRows(const CacheLayout& layout, KvCacheFormat format, std::int64_t group_size, std::int64_t capacity);

    [[nodiscard]] std::int64_t size() const { return size_; }
    /// @param rows [count, layout.width] @throws Error{numeric} if a number does not fit the format.
    void append(const float* rows, std::int64_t count);
    /// The numbers of one slice as floats, unpacked into `scratch` or in place. Valid until the next append.
    [[nodiscard]] MatrixIn slice(std::size_t slice, std::int64_t first, std::int64_t count, float* scratch) const;
    /// The numbers of slice() in the type of `arithmetic`: BF16 only if bf16().
    [[nodiscard]] TileIn tile(std::size_t slice, std::int64_t first, std::int64_t count,
                              const TileArithmetic& arithmetic, float* scratch) const;
    /// Prefetches rows; rows out of range are ignored.
    void prefetch(std::size_t slice, std::int64_t first, std::int64_t count) const;
    [[nodiscard]] bool bf16() const { return format_ == KvCacheFormat::bf16; }
    /// Unpacks whole rows. @param to [count, layout.width]
    void decode(std::int64_t first, std::int64_t count, float* to) const;
    /// Removes the oldest tokens.
    void drop_front(std::int64_t count);
    void clear() { first_ = size_ = 0; }
    /// Changes the capacity in tokens and keeps the rows.
    void set_capacity(std::int64_t capacity);
    void set_capacity_at_most(std::int64_t capacity) {
        if (capacity_ > capacity) set_capacity(capacity);
    }
    [[nodiscard]] std::uint64_t allocated_bytes() const;

private:
    struct Packed {
        std::int64_t row_bytes = 0, row_scales = 0;
        std::vector<std::byte, Eigen::aligned_allocator<std::byte>> codes;  // [capacity, row_bytes]
        std::vector<std::uint16_t> scales;                                  // [capacity, groups, 2], step and offset
    };
    [[nodiscard]] KvCacheFormat format_of(const CacheSlice& slice) const {
        return layout_->segments[slice.segment].scale ? KvCacheFormat::f32 : format_;
    }
    void encode(const CacheSlice& slice, Packed& packed, std::int64_t row, const float* numbers) const;
    void move_rows(std::int64_t from, std::int64_t to, std::int64_t count);

    const CacheLayout* layout_;
    KvCacheFormat format_;
    std::int64_t group_size_, capacity_;
    std::int64_t first_ = 0, size_ = 0;  // rows in use
    std::vector<Packed> slices_;
};

}  // namespace mha2mla
