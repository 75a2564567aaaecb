#pragma once
/// Memory budgets.

#include <cstdint>
#include <string>

namespace mha2mla {

/// The number of bytes that can be allocated now without swapping: MemAvailable, or the rest of the control group's
/// limit if that is less. The largest std::uint64_t if the system reports neither.
[[nodiscard]] std::uint64_t available_memory();

/// The memory budget of a run: `asked`, or half of available_memory() if `asked` is 0.
[[nodiscard]] std::uint64_t memory_budget(std::uint64_t asked);

/// A number of bytes for messages, for example "1.5 GB".
[[nodiscard]] std::string memory_text(std::uint64_t bytes);

}  // namespace mha2mla
