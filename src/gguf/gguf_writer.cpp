#include "mha2mla/gguf_writer.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>

#include "../support/output_file.hpp"
#include "gguf_format.hpp"
#include "mha2mla/error.hpp"

namespace mha2mla {
namespace {

static_assert(std::endian::native == std::endian::little, "the format is little-endian");

template <typename Number>
void put(std::string& to, Number number) {
    std::array<char, sizeof(Number)> bytes{};
    std::memcpy(bytes.data(), &number, sizeof(Number));
    to.append(bytes.data(), bytes.size());
}

void put_text(std::string& to, std::string_view text) {
    put<std::uint64_t>(to, text.size());
    to.append(text);
}

}  // namespace

void GgufMetadata::begin(std::string_view key, std::uint32_t type) {
    ++count_;
    put_text(bytes_, key);
    put(bytes_, type);
}

void GgufMetadata::begin_array(std::string_view key, std::uint32_t type, std::size_t size) {
    begin(key, gguf::array);
    put(bytes_, type);
    put<std::uint64_t>(bytes_, size);
}

void GgufMetadata::add(std::string_view key, std::uint32_t value) {
    begin(key, gguf::u32);
    put(bytes_, value);
}

void GgufMetadata::add(std::string_view key, float value) {
    begin(key, gguf::f32);
    put(bytes_, value);
}

void GgufMetadata::add(std::string_view key, bool value) {
    begin(key, gguf::boolean);
    put<std::uint8_t>(bytes_, value ? 1 : 0);
}

void GgufMetadata::add(std::string_view key, std::string_view value) {
    begin(key, gguf::string);
    put_text(bytes_, value);
}

void GgufMetadata::add(std::string_view key, std::span<const std::string> values) {
    begin_array(key, gguf::string, values.size());
    for (const std::string& value : values) put_text(bytes_, value);
}

void GgufMetadata::add(std::string_view key, std::span<const float> values) {
    begin_array(key, gguf::f32, values.size());
    for (const float value : values) put(bytes_, value);
}

void GgufMetadata::add(std::string_view key, std::span<const std::int32_t> values) {
    begin_array(key, gguf::i32, values.size());
    for (const std::int32_t value : values) put(bytes_, value);
}

void GgufMetadata::add_count(std::string_view key, std::int64_t value) {
    if (value < 0 || value > std::numeric_limits<std::uint32_t>::max()) {
        throw Error(ErrorCode::unsupported, "GGUF holds '" + std::string(key) + "' in 32 bits, which " +
                                                std::to_string(value) + " does not fit");
    }
    add(key, static_cast<std::uint32_t>(value));
}

std::int64_t GgufTensorSpec::elements() const {
    std::int64_t count = 1;
    for (const std::int64_t size : shape) count *= size;
    return count;
}

std::uint64_t write_gguf(const std::filesystem::path& path, const GgufMetadata& metadata,
                         std::span<const GgufTensorSpec> tensors,
                         const std::function<void(std::size_t, const GgufSink&)>& fill) {
    std::string head(gguf::kMagic);
    put(head, gguf::kVersion);
    put<std::uint64_t>(head, tensors.size());
    put(head, metadata.count());
    head.append(metadata.bytes());
    std::uint64_t data_bytes = 0;  // of the tensors so far, each with its padding
    for (const GgufTensorSpec& tensor : tensors) {
        put_text(head, tensor.name);
        put<std::uint32_t>(head, static_cast<std::uint32_t>(tensor.shape.size()));
        for (auto size = tensor.shape.rbegin(); size != tensor.shape.rend(); ++size) put(head, *size);
        put(head, format_of(tensor.type).id);
        put(head, data_bytes);
        data_bytes = gguf::aligned(data_bytes + static_cast<std::uint64_t>(tensor.bytes()), gguf::kAlignment);
    }
    head.resize(gguf::aligned(head.size(), gguf::kAlignment), '\0');

    OutputFile file(path);
    file.write_at(0, std::as_bytes(std::span(head)));
    std::uint64_t at = head.size();
    for (std::size_t index = 0; index < tensors.size(); ++index) {
        const std::uint64_t end = at + static_cast<std::uint64_t>(tensors[index].bytes());
        fill(index, [&](std::span<const std::byte> data) {
            file.write_at(at, data);
            at += data.size();
        });
        if (at != end) {
            throw Error(ErrorCode::usage, path.string() + ": tensor '" + tensors[index].name +
                                              "' was not written with the size that was announced");
        }
        at = gguf::aligned(at, gguf::kAlignment);
    }
    file.resize(at);
    file.publish();
    return at;
}

}  // namespace mha2mla
