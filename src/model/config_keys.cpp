#include "config_keys.hpp"

#include <algorithm>
#include <cmath>

#include "mha2mla/error.hpp"

namespace mha2mla {

const ConfigKeys::Json* ConfigKeys::find(const char* key) const {
    const auto it = object_.find(key);
    return it == object_.end() || it->is_null() ? nullptr : &*it;
}

bool ConfigKeys::is_null(const char* key) const {
    const auto it = object_.find(key);
    return it != object_.end() && it->is_null();
}

void ConfigKeys::fail(const std::string& key, const std::string& problem) const {
    throw Error(ErrorCode::format, where_ + ": key '" + key + "' " + problem);
}

void ConfigKeys::refuse(const std::string& what) const { throw Error(ErrorCode::unsupported, where_ + ": " + what); }

std::optional<std::int64_t> ConfigKeys::integer(const char* key) const {
    const Json* value = find(key);
    if (value == nullptr) return std::nullopt;
    if (!value->is_number_integer()) fail(key, "must be a whole number, not " + value->dump());
    if (value->is_number_unsigned() && value->get<std::uint64_t>() > INT64_MAX) {
        fail(key, "is out of range: " + value->dump());
    }
    return value->get<std::int64_t>();
}

std::int64_t ConfigKeys::dimension(const char* key, std::int64_t largest, std::optional<std::int64_t> fallback) const {
    const auto value = integer(key);
    if (!value && !fallback) fail(key, "is missing; is this the config.json of a language model?");
    const std::int64_t result = value ? *value : *fallback;
    if (result < 1 || result > largest) fail(key, "is out of range: " + std::to_string(result));
    return result;
}

bool ConfigKeys::is_positive(const Json& value) const {
    return value.is_number() && value.get<double>() > 0 && std::isfinite(value.get<double>());
}

double ConfigKeys::positive(const char* key, double fallback) const {
    const Json* value = find(key);
    if (value == nullptr) return fallback;
    if (!is_positive(*value)) fail(key, "must be a positive number, not " + value->dump());
    return value->get<double>();
}

bool ConfigKeys::flag(const char* key, bool fallback) const {
    const Json* value = find(key);
    if (value == nullptr) return fallback;
    if (!value->is_boolean()) fail(key, "must be true or false, not " + value->dump());
    return value->get<bool>();
}

std::string ConfigKeys::text(const char* key, const std::string& fallback) const {
    const Json* value = find(key);
    if (value == nullptr) return fallback;
    if (!value->is_string()) fail(key, "must be a string, not " + value->dump());
    return value->get<std::string>();
}

std::vector<double> ConfigKeys::positives(const char* key, std::size_t count) const {
    const Json* value = find(key);
    if (value == nullptr) fail(key, "is missing");
    const bool valid = value->is_array() && value->size() == count &&
                       std::all_of(value->begin(), value->end(), [&](const Json& x) { return is_positive(x); });
    if (!valid) fail(key, "must list " + std::to_string(count) + " positive numbers");
    return value->get<std::vector<double>>();
}

ConfigKeys ConfigKeys::object(const char* key) const {
    const Json* value = find(key);
    if (value == nullptr || !value->is_object()) fail(key, "must be an object");
    return {*value, where_ + ": " + key};
}

}  // namespace mha2mla
