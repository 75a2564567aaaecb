#pragma once
/// How much memory a run may take.

#include <cstdint>
#include <string>

namespace mha2mla {

/// Bytes that could be allocated now without swapping: MemAvailable, or what the control group has left if that is
/// less. The largest number if the system does not tell.
[[nodiscard]] std::uint64_t available_memory();

/// The budget of a run: `asked`, or half of available_memory() if that is 0.
[[nodiscard]] std::uint64_t memory_budget(std::uint64_t asked);

/// "1.5 GB", for messages.
[[nodiscard]] std::string memory_text(std::uint64_t bytes);

}  // namespace mha2mla
