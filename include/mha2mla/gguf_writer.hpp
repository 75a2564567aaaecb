#pragma once
/// Writing GGUF files (version 3, little-endian), the format of llama.cpp.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "mha2mla/block_format.hpp"

namespace mha2mla {

/// Keys and values of a file, in the order in which they were added. Each key may be added once.
class GgufMetadata {
public:
    void add(std::string_view key, std::uint32_t value);
    void add(std::string_view key, std::int32_t value) = delete;  // counts and ids are unsigned
    void add(std::string_view key, float value);
    void add(std::string_view key, bool value);
    void add(std::string_view key, std::string_view value);
    void add(std::string_view key, const char* value) { add(key, std::string_view(value)); }
    void add(std::string_view key, std::span<const std::string> values);
    void add(std::string_view key, std::span<const float> values);
    void add(std::string_view key, std::span<const std::int32_t> values);
    /// A whole number from a configuration. @throws Error{unsupported} naming the key if 32 bits do not hold it.
    void add_count(std::string_view key, std::int64_t value);

    [[nodiscard]] std::uint64_t count() const { return count_; }
    [[nodiscard]] std::string_view bytes() const { return bytes_; }

private:
    void begin(std::string_view key, std::uint32_t type);
    void begin_array(std::string_view key, std::uint32_t type, std::size_t size);

    std::uint64_t count_ = 0;
    std::string bytes_;
};

/// A tensor of a file. The last dimension is that of the rows, which are whole blocks; GGUF itself lists it first.
struct GgufTensorSpec {
    std::string name;
    BlockType type = BlockType::f32;
    std::vector<std::int64_t> shape;

    [[nodiscard]] std::int64_t elements() const;
    [[nodiscard]] std::int64_t bytes() const { return format_of(type).bytes_of(elements()); }
};

/// Takes the next bytes of a tensor.
using GgufSink = std::function<void(std::span<const std::byte>)>;

/// Writes one file atomically (temporary name, flush, rename).
/// @param fill gives the data of tensor i to a sink, in parts and in order. It is called for each tensor in order, so
/// that no tensor need be in memory as a whole.
/// @return bytes of the file.
/// @throws Error{io}
std::uint64_t write_gguf(const std::filesystem::path& path, const GgufMetadata& metadata,
                         std::span<const GgufTensorSpec> tensors,
                         const std::function<void(std::size_t, const GgufSink&)>& fill);

}  // namespace mha2mla
