#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "../support/hash.hpp"
#include "mha2mla/tensor.hpp"

namespace mha2mla {

/// A tensor in a file that is being written.
struct Slot {
    TensorSpec spec;
    std::size_t shard = 0;
    std::uint64_t begin = 0;  // in the shard's data section
    std::uint64_t bytes = 0;
    std::uint64_t written = 0;
    std::unique_ptr<Hasher> hasher = {};  // of an unfinished tensor; used by the thread that writes it
    std::string hash = {};                // of a finished tensor

    void add(std::span<const std::byte> data) {
        if (!hasher) hasher = std::make_unique<Hasher>();
        hasher->add(data);
        if (written < bytes) return;
        hash = hasher->hex();
        hasher.reset();
    }
};

/// The header of one file, padded with spaces so that the data starts at a multiple of 8, as the format advises.
[[nodiscard]] std::string header_text(std::span<const Slot* const> slots,
                                      const std::map<std::string, std::string>& metadata);

/// Assigns ranges to the slots of one file. Wide elements come first, so that every tensor is aligned.
/// @return the slots in the order of their ranges.
std::vector<Slot*> lay_out(std::span<Slot> slots);

/// One slot per tensor, without ranges.
[[nodiscard]] std::vector<Slot> make_slots(std::vector<TensorSpec> tensors);

}  // namespace mha2mla
