#pragma once
#include <filesystem>
#include <nlohmann/json.hpp>

namespace mha2mla {

/// The whole of a JSON file. @throws Error{io} if it cannot be read, Error{format} with the position if it is not
/// JSON, is nested deeper than 64 or is over `max_bytes`.
/// `Json` is nlohmann::json, or nlohmann::ordered_json to keep the order of keys (slow with very many keys).
template <typename Json = nlohmann::json>
[[nodiscard]] Json read_json_file(const std::filesystem::path& path, std::size_t max_bytes = 256'000'000);

}  // namespace mha2mla
