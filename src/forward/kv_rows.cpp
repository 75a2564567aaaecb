#include "kv_rows.hpp"

#include <algorithm>
#include <cstring>

#include "../support/parallel.hpp"
#include "quantize.hpp"
#include "unpack.hpp"

namespace mha2mla {
namespace {

constexpr std::int64_t kLineBytes = 64;  // line of the processor's cache
constexpr std::int64_t kRowBlock = 32;   // rows that one thread encodes at a time

std::size_t size_of(std::int64_t count) { return static_cast<std::size_t>(count); }

}  // namespace

KvRows::KvRows(const CacheLayout& layout, KvCacheFormat format, std::int64_t group_size, std::int64_t capacity)
    : layout_(&layout), format_(format), group_size_(group_size), capacity_(0) {
    for (const auto& slice : layout.slices) {
        const int bits = row_of(format_of(slice)).bits;
        Packed packed;
        if (row_of(format_of(slice)).quantizer == Quantizer::none) {
            packed.row_bytes = slice.width * bits / 8;
        } else {
            for (std::int64_t i = 0; i < slice.width; i += group_size) {
                packed.row_bytes += code_bytes(std::min(group_size, slice.width - i), bits);
                packed.row_scales += 2;
            }
        }
        slices_.push_back(std::move(packed));
    }
    set_capacity(capacity);
}

void KvRows::set_capacity(std::int64_t capacity) {
    if (first_ > 0) move_rows(first_, 0, size_);
    first_ = 0;
    capacity_ = std::max(capacity, size_);
    for (auto& packed : slices_) {
        packed.codes.resize(size_of(capacity_ * packed.row_bytes));
        packed.codes.shrink_to_fit();
        packed.scales.resize(size_of(capacity_ * packed.row_scales));
        packed.scales.shrink_to_fit();
    }
}

void KvRows::move_rows(std::int64_t from, std::int64_t to, std::int64_t count) {
    for (auto& packed : slices_) {
        std::memmove(packed.codes.data() + to * packed.row_bytes, packed.codes.data() + from * packed.row_bytes,
                     size_of(count * packed.row_bytes));
        if (packed.row_scales == 0) continue;
        std::memmove(packed.scales.data() + to * packed.row_scales, packed.scales.data() + from * packed.row_scales,
                     size_of(count * packed.row_scales) * sizeof(std::uint16_t));
    }
}

void KvRows::encode(const CacheSlice& slice, Packed& packed, std::int64_t row, const float* numbers) const {
    std::byte* to = packed.codes.data() + row * packed.row_bytes;
    const KvCacheFormatRow& format = row_of(format_);
    if (format_of(slice) == KvCacheFormat::f32) {
        std::memcpy(to, numbers, size_of(packed.row_bytes));
        return;
    }
    if (format.quantizer == Quantizer::none) {
        const auto convert = format_ == KvCacheFormat::bf16 ? to_bf16 : to_f16;
        for (std::int64_t i = 0; i < slice.width; ++i) {
            const std::uint16_t half = convert(numbers[i]);
            std::memcpy(to + 2 * i, &half, 2);
        }
        return;
    }
    std::uint16_t* scales = packed.scales.data() + row * packed.row_scales;
    std::vector<std::uint8_t> codes(size_of(std::min(group_size_, slice.width)));
    for (std::int64_t i = 0; i < slice.width; i += group_size_) {
        const std::int64_t count = std::min(group_size_, slice.width - i);
        const GroupScale scale = quantize_group(numbers + i, count, format.bits, format.quantizer, codes.data());
        *scales++ = scale.step;
        *scales++ = scale.offset;
        pack_codes(codes.data(), count, format.bits, to);
        to += code_bytes(count, format.bits);
    }
}

void KvRows::append(const float* rows, std::int64_t count) {
    if (first_ + size_ + count > capacity_) {
        if (size_ + count > capacity_) {
            set_capacity(size_ + count);
        } else {
            move_rows(first_, 0, size_);
            first_ = 0;
        }
    }
    const std::int64_t start = first_ + size_;
    const auto encode_rows = [&](std::int64_t first, std::int64_t end) {
        for (std::int64_t row = first; row < end; ++row) {
            for (std::size_t i = 0; i < slices_.size(); ++i) {
                const CacheSlice& slice = layout_->slices[i];
                encode(slice, slices_[i], start + row, rows + row * layout_->width + slice.column);
            }
        }
    };
    if (count < kRowBlock) {
        encode_rows(0, count);
    } else {
        parallel_for((count + kRowBlock - 1) / kRowBlock, [&](std::int64_t block, std::vector<float>&) {
            encode_rows(block * kRowBlock, std::min(count, (block + 1) * kRowBlock));
        });
    }
    size_ += count;
}

MatrixIn KvRows::slice(std::size_t index, std::int64_t first, std::int64_t count, float* scratch) const {
    const Packed& packed = slices_[index];
    const std::int64_t width = layout_->slices[index].width;
    const std::byte* from = packed.codes.data() + (first_ + first) * packed.row_bytes;
    switch (format_of(layout_->slices[index])) {
        case KvCacheFormat::f32:
            return {reinterpret_cast<const float*>(from), width};
        case KvCacheFormat::bf16:
            decode_bf16(from, count * width, scratch);
            return {scratch, width};
        case KvCacheFormat::f16:
            decode_f16(from, count * width, scratch);
            return {scratch, width};
        default:
            break;
    }
    const int bits = row_of(format_).bits;
    const std::uint16_t* scales = packed.scales.data() + (first_ + first) * packed.row_scales;
    float step_and_offset[2];
    for (std::int64_t row = 0; row < count; ++row) {
        for (std::int64_t i = 0; i < width; i += group_size_, scales += 2) {
            const std::int64_t group = std::min(group_size_, width - i);
            decode_f16(reinterpret_cast<const std::byte*>(scales), 2, step_and_offset);
            decode_codes(from, group, bits, step_and_offset[0], step_and_offset[1], scratch + row * width + i);
            from += code_bytes(group, bits);
        }
    }
    return {scratch, width};
}

TileIn KvRows::tile(std::size_t index, std::int64_t first, std::int64_t count, const TileArithmetic& arithmetic,
                    float* scratch) const {
    const Packed& packed = slices_[index];
    if (arithmetic.number_bytes == 2) {
        return {packed.codes.data() + (first_ + first) * packed.row_bytes, packed.row_bytes};
    }
    if (format_ != KvCacheFormat::f32) prefetch(index, first + count, count);
    const MatrixIn numbers = slice(index, first, count, scratch);
    return {reinterpret_cast<const std::byte*>(numbers.data),
            numbers.stride * static_cast<std::int64_t>(sizeof(float))};
}

void KvRows::prefetch(std::size_t index, std::int64_t first, std::int64_t count) const {
    const Packed& packed = slices_[index];
    const std::byte* from = packed.codes.data() + (first_ + first) * packed.row_bytes;
    const std::int64_t bytes = std::min(count, size_ - first) * packed.row_bytes;
    for (std::int64_t i = 0; i < bytes; i += kLineBytes) __builtin_prefetch(from + i);
}

void KvRows::decode(std::int64_t first, std::int64_t count, float* to) const {
    std::vector<float> scratch;
    for (std::size_t i = 0; i < slices_.size(); ++i) {
        const CacheSlice& part = layout_->slices[i];
        scratch.resize(size_of(count * part.width));
        const MatrixIn numbers = slice(i, first, count, scratch.data());
        for (std::int64_t row = 0; row < count; ++row) {
            std::copy_n(numbers.data + row * numbers.stride, part.width, to + row * layout_->width + part.column);
        }
    }
}

void KvRows::drop_front(std::int64_t count) {
    first_ += count;
    size_ -= count;
}

std::uint64_t KvRows::allocated_bytes() const {
    std::uint64_t bytes = 0;
    for (const auto& packed : slices_) {
        bytes += packed.codes.capacity() + packed.scales.capacity() * sizeof(std::uint16_t);
    }
    return bytes;
}

}  // namespace mha2mla
