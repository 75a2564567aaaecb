#include <algorithm>
#include <cmath>
#include <cstring>

#include "gguf_format.hpp"
#include "mha2mla/error.hpp"
#include "mha2mla/gguf.hpp"

namespace mha2mla {
namespace {

template <typename Number>
Number number_at(std::span<const std::byte> data, std::uint64_t index) {
    Number number;
    std::memcpy(&number, &data[index * sizeof(Number)], sizeof(Number));
    return number;
}

/// A whole number that 64 bits with a sign hold.
std::optional<std::int64_t> integer_at(const GgufValue& value, std::uint64_t index) {
    switch (value.type) {
        case gguf::u8:
            return number_at<std::uint8_t>(value.data, index);
        case gguf::i8:
            return number_at<std::int8_t>(value.data, index);
        case gguf::u16:
            return number_at<std::uint16_t>(value.data, index);
        case gguf::i16:
            return number_at<std::int16_t>(value.data, index);
        case gguf::u32:
            return number_at<std::uint32_t>(value.data, index);
        case gguf::i32:
            return number_at<std::int32_t>(value.data, index);
        case gguf::i64:
            return number_at<std::int64_t>(value.data, index);
        case gguf::u64: {
            const auto number = number_at<std::uint64_t>(value.data, index);
            if (number > static_cast<std::uint64_t>(INT64_MAX)) return std::nullopt;
            return static_cast<std::int64_t>(number);
        }
        default:
            return std::nullopt;
    }
}

}  // namespace

std::int64_t GgufTensor::rows() const {
    std::int64_t count = 1;
    for (std::size_t i = 0; i + 1 < shape.size(); ++i) count *= shape[i];
    return count;
}

void GgufTensor::read_row(std::int64_t row, std::span<float> to) const {
    const auto bytes = static_cast<std::size_t>(format->bytes_of(row_length()));
    format->dequantize(data.subspan(static_cast<std::size_t>(row) * bytes, bytes), to);
    if (!std::all_of(to.begin(), to.end(), [](float value) { return std::isfinite(value); })) {
        throw Error(ErrorCode::numeric,
                    "tensor '" + name + "' holds a number that is not finite in row " + std::to_string(row));
    }
}

GgufFile::GgufFile(const std::filesystem::path& path)
    : path_(path), file_(path), content_(parse_gguf(file_.bytes(), path.string())) {}

const GgufTensor* GgufFile::find(std::string_view name) const {
    const auto found = std::find_if(content_.tensors.begin(), content_.tensors.end(),
                                    [&](const GgufTensor& tensor) { return tensor.name == name; });
    return found == content_.tensors.end() ? nullptr : &*found;
}

void GgufFile::fail(std::string_view key, std::string_view problem) const {
    throw Error(ErrorCode::format, path_.string() + ": key '" + std::string(key) + "' " + std::string(problem));
}

const GgufValue* GgufFile::value(std::string_view key, bool array) const {
    const auto found = content_.values.find(key);
    if (found == content_.values.end()) return nullptr;
    if (found->second.array != array) fail(key, array ? "must be an array" : "must be one value, not an array");
    return &found->second;
}

std::optional<std::int64_t> GgufFile::integer(std::string_view key) const {
    const GgufValue* found = value(key, false);
    if (found == nullptr) return std::nullopt;
    const auto number = integer_at(*found, 0);
    if (!number) fail(key, "must be a whole number");
    return number;
}

std::optional<float> GgufFile::number(std::string_view key) const {
    const GgufValue* found = value(key, false);
    if (found == nullptr) return std::nullopt;
    if (found->type != gguf::f32) fail(key, "must be a 32-bit float");
    return number_at<float>(found->data, 0);
}

std::optional<bool> GgufFile::flag(std::string_view key) const {
    const GgufValue* found = value(key, false);
    if (found == nullptr) return std::nullopt;
    if (found->type != gguf::boolean) fail(key, "must be true or false");
    return number_at<std::uint8_t>(found->data, 0) != 0;
}

std::optional<std::string_view> GgufFile::text(std::string_view key) const {
    const GgufValue* found = value(key, false);
    if (found == nullptr) return std::nullopt;
    if (found->type != gguf::string) fail(key, "must be text");
    const auto bytes = found->data.subspan(sizeof(std::uint64_t));
    return std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

std::vector<std::string_view> GgufFile::texts(std::string_view key) const {
    const GgufValue* found = value(key, true);
    if (found == nullptr) return {};
    if (found->type != gguf::string) fail(key, "must be an array of texts");
    std::vector<std::string_view> texts;
    std::span<const std::byte> rest = found->data;
    for (std::uint64_t i = 0; i < found->count; ++i) {
        const auto size = number_at<std::uint64_t>(rest, 0);
        rest = rest.subspan(sizeof(size));
        texts.emplace_back(reinterpret_cast<const char*>(rest.data()), size);
        rest = rest.subspan(size);
    }
    return texts;
}

std::vector<float> GgufFile::numbers(std::string_view key) const {
    const GgufValue* found = value(key, true);
    if (found == nullptr) return {};
    if (found->type != gguf::f32) fail(key, "must be an array of 32-bit floats");
    std::vector<float> numbers(found->count);
    if (!numbers.empty()) std::memcpy(numbers.data(), found->data.data(), found->data.size());
    return numbers;
}

std::vector<std::int64_t> GgufFile::integers(std::string_view key) const {
    const GgufValue* found = value(key, true);
    if (found == nullptr) return {};
    std::vector<std::int64_t> numbers;
    for (std::uint64_t i = 0; i < found->count; ++i) {
        const auto number = integer_at(*found, i);
        if (!number) fail(key, "must be an array of whole numbers");
        numbers.push_back(*number);
    }
    return numbers;
}

}  // namespace mha2mla
