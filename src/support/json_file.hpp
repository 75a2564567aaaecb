#pragma once
#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>

namespace mha2mla {

/// How a key that appears twice in one object is read: the last value counts, as in most JSON readers, or the file is
/// refused.
enum class RepeatedKeys : std::uint8_t { last_counts, refused };

/// Reads a whole JSON file. @throws Error{io} if it cannot be read, Error{format} with the position if it is not JSON,
/// is nested deeper than 64 levels, is larger than `max_bytes` or repeats a key although that is refused. `Json` is
/// nlohmann::json, or nlohmann::ordered_json, which keeps the order of keys and is slow with very many of them.
template <typename Json = nlohmann::json>
[[nodiscard]] Json read_json_file(const std::filesystem::path& path, std::size_t max_bytes = 256'000'000,
                                  RepeatedKeys repeated = RepeatedKeys::last_counts);

}  // namespace mha2mla
