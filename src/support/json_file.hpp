#pragma once
#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string_view>

namespace mha2mla {

/// How a key that appears twice in one object is read: the last value counts, as in most JSON readers, or the file is
/// refused.
enum class RepeatedKeys : std::uint8_t { last_counts, refused };

/// Reads a whole JSON file. @throws Error{io} if it cannot be read, Error{format} with the position if it is not JSON,
/// is nested deeper than 64 levels, is larger than `max_bytes`, would take more than three times its bytes and 150 MB
/// of memory, or repeats a key although that is refused. `Json` is nlohmann::json, or nlohmann::ordered_json, which
/// keeps the order of keys; it may have 65,536 in one object.
template <typename Json = nlohmann::json>
[[nodiscard]] Json read_json_file(const std::filesystem::path& path, std::size_t max_bytes = 256'000'000,
                                  RepeatedKeys repeated = RepeatedKeys::last_counts);

/// The value of a text such as a line of JSON Lines; one that is_discarded() if the text is no JSON, holds a NUL byte,
/// or is what read_json_file() would refuse.
template <typename Json = nlohmann::json>
[[nodiscard]] Json parse_json(std::string_view text);

/// A whole number. @throws nlohmann::json::type_error, also for a number with a fraction or an exponent, whose
/// conversion to an integer is undefined where it does not fit.
template <typename Json>
[[nodiscard]] std::int64_t whole_number(const Json& json) {
    return json.template get_ref<const typename Json::number_integer_t&>();
}

}  // namespace mha2mla
