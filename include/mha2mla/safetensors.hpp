#pragma once
/// One safetensors file as memory-mapped, validated, zero-copy tensor views.
///
/// Thread-safety: everything here is immutable once it is open and may be read from several threads.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "mha2mla/mapped_file.hpp"
#include "mha2mla/tensor.hpp"

namespace mha2mla {

/// The content of a safetensors header, in the order of the data. Offsets are relative to the start of the data
/// section.
struct SafetensorsHeader {
    struct Entry {
        std::string name;
        Dtype dtype = Dtype::f32;
        Shape shape;
        std::uint64_t begin = 0, end = 0;
    };
    std::vector<Entry> entries;
    std::map<std::string, std::string> metadata;
    std::uint64_t data_start = 0;  // offset of the data section in the file
};

/// Checks the bytes of a whole file against every rule of the safetensors format, and reads the header.
/// The rules: 8-byte length <= 100,000,000; a UTF-8 JSON object; known dtypes; shape x dtype = byte range; ranges
/// without gap or overlap up to the end of the file; unique names; `__metadata__` is a string map or null.
/// @throws Error{format} naming `file_name` and the tensor.
[[nodiscard]] SafetensorsHeader validate(std::span<const std::byte> file, std::string_view file_name);

/// A validated safetensors file. Moving it keeps its views valid.
class SafetensorsFile {
public:
    /// @throws Error{io}, Error{format}
    explicit SafetensorsFile(const std::filesystem::path& path);
    [[nodiscard]] const std::vector<TensorView>& tensors() const { return tensors_; }
    /// The tensor with this name, or nullptr.
    [[nodiscard]] const TensorView* find(std::string_view name) const;
    [[nodiscard]] const std::map<std::string, std::string>& metadata() const { return metadata_; }
    [[nodiscard]] const MappedFile& file() const { return file_; }
    [[nodiscard]] const std::filesystem::path& path() const { return path_; }

private:
    std::filesystem::path path_;
    MappedFile file_;
    std::vector<TensorView> tensors_;
    std::map<std::string, std::string> metadata_;
};

}  // namespace mha2mla
