#pragma once
#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>

namespace mha2mla {

/// What a key that stands twice in one object means: as for others' programs the last one counts, or it is a mistake.
enum class RepeatedKeys : std::uint8_t { last_counts, refused };

/// The whole of a JSON file. @throws Error{io} if it cannot be read, Error{format} with the position if it is not
/// JSON, is nested deeper than 64, is over `max_bytes` or repeats a key where that is refused.
/// `Json` is nlohmann::json, or nlohmann::ordered_json to keep the order of keys (slow with very many keys).
template <typename Json = nlohmann::json>
[[nodiscard]] Json read_json_file(const std::filesystem::path& path, std::size_t max_bytes = 256'000'000,
                                  RepeatedKeys repeated = RepeatedKeys::last_counts);

}  // namespace mha2mla
