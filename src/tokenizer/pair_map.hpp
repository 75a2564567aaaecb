#pragma once
/// A hash table from pairs of ids to a number, for the innermost loop of BPE.

#include <cstddef>
#include <cstdint>
#include <vector>

#include "mha2mla/tokenizer.hpp"

namespace mha2mla {

/// Open addressing with linear probing, at most half full, so that a look-up usually reads one cache line.
class PairMap {
public:
    static constexpr std::uint32_t kNone = 0xFFFFFFFF;

    /// Reserves space for this many pairs.
    void reserve(std::size_t count) {
        while (2 * (count + 1) > slots_.size()) grow();
    }

    /// Sets the value of a pair (anything but kNone).
    void set(TokenId left, TokenId right, std::uint32_t value) {
        if (2 * (count_ + 1) > slots_.size()) grow();
        Slot& slot = slots_[place(slots_, key(left, right))];
        if (slot.value == kNone) ++count_;
        slot = {key(left, right), value};
    }

    /// The value of a pair, or kNone.
    [[nodiscard]] std::uint32_t find(TokenId left, TokenId right) const {
        return slots_.empty() ? kNone : slots_[place(slots_, key(left, right))].value;
    }

private:
    struct Slot {
        std::uint64_t key = 0;
        std::uint32_t value = kNone;
    };

    static std::uint64_t key(TokenId left, TokenId right) {
        return (std::uint64_t{static_cast<std::uint32_t>(left)} << 32) | static_cast<std::uint32_t>(right);
    }

    /// The slot of a key, or the free slot where it would be inserted. The number of slots is a power of two.
    static std::size_t place(const std::vector<Slot>& slots, std::uint64_t key) {
        std::uint64_t hash = key * 0x9E3779B97F4A7C15u;
        hash ^= hash >> 32;
        std::size_t at = hash & (slots.size() - 1);
        while (slots[at].value != kNone && slots[at].key != key) at = (at + 1) & (slots.size() - 1);
        return at;
    }

    void grow() {
        std::vector<Slot> larger(slots_.empty() ? 64 : 2 * slots_.size());
        for (const Slot& slot : slots_) {
            if (slot.value != kNone) larger[place(larger, slot.key)] = slot;
        }
        slots_ = std::move(larger);
    }

    std::vector<Slot> slots_;
    std::size_t count_ = 0;
};

}  // namespace mha2mla
