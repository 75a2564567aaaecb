#pragma once
/// Reads tokenizer.json with messages that name the file and the key.

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "mha2mla/error.hpp"

namespace mha2mla {

/// `text` in quotes, on one line and cut to a readable length, because messages may contain any text of a file.
[[nodiscard]] std::string in_quotes(std::string_view text);

/// A value in a JSON file, and its path. Refers to the parsed file, which must outlive it.
class JsonNode {
public:
    JsonNode(const nlohmann::json& root, std::string_view file);

    /// The member `key` of an object. @throws Error{format} if it is missing or null.
    [[nodiscard]] JsonNode at(std::string_view key) const;
    /// The member `key` of an object, or nothing if it is missing or null.
    [[nodiscard]] std::optional<JsonNode> find(std::string_view key) const;
    /// The elements of an array.
    [[nodiscard]] std::vector<JsonNode> elements() const;
    /// The values of an object, in the order of the keys.
    [[nodiscard]] std::vector<JsonNode> members() const;

    [[nodiscard]] const std::string& string() const;
    /// A string of exactly one character.
    [[nodiscard]] char32_t character() const;
    [[nodiscard]] bool boolean() const;
    [[nodiscard]] std::int64_t integer(std::int64_t low, std::int64_t high) const;

    [[nodiscard]] std::string string_or(std::string_view key, std::string_view fallback) const;
    [[nodiscard]] bool boolean_or(std::string_view key, bool fallback) const;

    [[nodiscard]] const nlohmann::json& value() const { return *value_; }
    /// The last key of the path.
    [[nodiscard]] std::string_view key() const;
    /// The number of keys and indices in the path.
    [[nodiscard]] int depth() const { return depth_; }

    /// Throws an Error that names the file and the path, followed by `message`.
    [[noreturn]] void fail(ErrorCode code, std::string_view message) const;

private:
    JsonNode(const JsonNode& parent, const nlohmann::json& value, std::string path);

    const nlohmann::json* value_;
    std::string file_;
    std::string path_;
    int depth_ = 0;
};

/// A step of the pipeline: its `type` in the file, and the function that reads it.
template <typename Step>
struct StepKind {
    std::string_view type;
    Step (*parse)(const JsonNode& node);
};

/// Fails unless the node's `type` is in the list. The message contains the list.
[[nodiscard]] std::size_t find_step_kind(const JsonNode& node, std::span<const std::string_view> types);

/// Reads a step with the row of `kinds` for its `type`.
/// @throws Error{unsupported} for a type without a row, or steps nested deeper than 16.
template <typename Step, std::size_t N>
Step parse_step(const JsonNode& node, const StepKind<Step> (&kinds)[N]) {
    std::vector<std::string_view> types;
    for (const auto& kind : kinds) types.push_back(kind.type);
    return kinds[find_step_kind(node, types)].parse(node);
}

}  // namespace mha2mla
