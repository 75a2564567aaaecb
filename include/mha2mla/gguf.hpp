#pragma once
/// One GGUF file as memory-mapped, validated, zero-copy views.
///
/// Thread-safety: everything here is immutable once it is open and may be read from several threads.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "mha2mla/block_format.hpp"
#include "mha2mla/mapped_file.hpp"

namespace mha2mla {

/// A value of the metadata, as it lies in the file.
struct GgufValue {
    std::uint32_t type = 0;           // of the value; of the elements of an array
    bool array = false;               // of scalars or strings; arrays of arrays are checked and then left out
    std::uint64_t count = 1;          // elements of an array
    std::span<const std::byte> data;  // of the value, or of all elements
};

/// A tensor in a mapped file.
struct GgufTensor {
    std::string name;
    const BlockFormat* format = nullptr;
    std::vector<std::int64_t> shape;  // the dimension of the rows last; GGUF itself lists it first
    std::span<const std::byte> data;

    [[nodiscard]] std::int64_t row_length() const { return shape.back(); }
    /// Of all other dimensions together.
    [[nodiscard]] std::int64_t rows() const;
    /// The values of one row. @throws Error{numeric} naming the tensor if one is not finite.
    void read_row(std::int64_t row, std::span<float> to) const;
};

/// Keys and tensors, as views of the bytes of a file.
struct GgufContent {
    std::map<std::string, GgufValue, std::less<>> values;
    std::vector<GgufTensor> tensors;  // in the order of the file
};

/// Checks the bytes of a whole file of version 2 or 3 against every rule of the format. The rules: counts, lengths and
/// offsets stay in the file; known types of values; arrays nested at most four deep; unique keys and names; one to four
/// positive dimensions; rows of whole blocks; data aligned and without overlap.
/// @throws Error{format} naming `file_name` and key or tensor, Error{unsupported} for other versions and for types of
///         tensors that BlockFormat does not know.
[[nodiscard]] GgufContent parse_gguf(std::span<const std::byte> file, const std::string& file_name);

/// A validated GGUF file. Moving it keeps its views valid.
class GgufFile {
public:
    /// @throws Error{io}, and as parse_gguf.
    explicit GgufFile(const std::filesystem::path& path);

    [[nodiscard]] const std::vector<GgufTensor>& tensors() const { return content_.tensors; }
    /// The tensor with this name, or nullptr.
    [[nodiscard]] const GgufTensor* find(std::string_view name) const;
    [[nodiscard]] bool has(std::string_view key) const { return content_.values.contains(key); }

    // The value of a key, or nothing if it is not there. @throws Error{format} naming file and key for another type.
    [[nodiscard]] std::optional<std::int64_t> integer(std::string_view key) const;
    [[nodiscard]] std::optional<float> number(std::string_view key) const;
    [[nodiscard]] std::optional<bool> flag(std::string_view key) const;
    [[nodiscard]] std::optional<std::string_view> text(std::string_view key) const;
    /// Elements of an array; empty if it is not there.
    [[nodiscard]] std::vector<std::string_view> texts(std::string_view key) const;
    [[nodiscard]] std::vector<float> numbers(std::string_view key) const;
    [[nodiscard]] std::vector<std::int64_t> integers(std::string_view key) const;

    [[nodiscard]] const std::filesystem::path& path() const { return path_; }
    [[nodiscard]] const MappedFile& file() const { return file_; }
    /// Throws Error{format} that names the file and a key.
    [[noreturn]] void fail(std::string_view key, std::string_view problem) const;

private:
    [[nodiscard]] const GgufValue* value(std::string_view key, bool array) const;

    std::filesystem::path path_;
    MappedFile file_;
    GgufContent content_;
};

}  // namespace mha2mla
