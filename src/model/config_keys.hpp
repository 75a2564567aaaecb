#pragma once
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

namespace mha2mla {

/// A position beyond this comes from a damaged file.
inline constexpr std::int64_t kMaxPositions = std::int64_t{1} << 31;

/// Typed access to the keys of one JSON object; every message names file and key. A key whose value is null is absent.
class ConfigKeys {
public:
    using Json = nlohmann::ordered_json;

    /// @param object must outlive this. @param where file and place in it, for messages.
    ConfigKeys(const Json& object, std::string where) : object_(object), where_(std::move(where)) {}

    [[nodiscard]] const Json* find(const char* key) const;
    [[nodiscard]] bool is_null(const char* key) const;
    /// @throws Error{format}
    [[noreturn]] void fail(const std::string& key, const std::string& problem) const;
    /// @throws Error{unsupported}
    [[noreturn]] void refuse(const std::string& what) const;

    // The value of a key, or what is given for an absent one. @throws Error{format} for a value of another kind.
    [[nodiscard]] std::optional<std::int64_t> integer(const char* key) const;
    /// From 1 to `largest`. @throws Error{format} if it is absent and there is no fallback.
    [[nodiscard]] std::int64_t dimension(const char* key, std::int64_t largest,
                                         std::optional<std::int64_t> fallback = std::nullopt) const;
    [[nodiscard]] double positive(const char* key, double fallback) const;
    [[nodiscard]] bool flag(const char* key, bool fallback) const;
    [[nodiscard]] std::string text(const char* key, const std::string& fallback) const;
    /// `count` positive numbers.
    [[nodiscard]] std::vector<double> positives(const char* key, std::size_t count) const;
    /// The object under `key`. @throws Error{format} if it is absent or none.
    [[nodiscard]] ConfigKeys object(const char* key) const;

    [[nodiscard]] const Json& json() const { return object_; }
    [[nodiscard]] const std::string& where() const { return where_; }

private:
    [[nodiscard]] bool is_positive(const Json& value) const;

    const Json& object_;
    std::string where_;
};

}  // namespace mha2mla
