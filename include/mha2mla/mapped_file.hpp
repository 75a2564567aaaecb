#pragma once
/// A file as read-only memory.

#include <cstddef>
#include <filesystem>
#include <span>

namespace mha2mla {

/// A read-only memory map of a whole regular file.
class MappedFile {
public:
    /// @throws Error{io} if it is missing, not a regular file, or cannot be mapped.
    explicit MappedFile(const std::filesystem::path& path);
    ~MappedFile();
    MappedFile(MappedFile&& other) noexcept;
    MappedFile& operator=(MappedFile&& other) noexcept;
    MappedFile(const MappedFile&) = delete;
    MappedFile& operator=(const MappedFile&) = delete;

    [[nodiscard]] std::span<const std::byte> bytes() const { return {data_, size_}; }
    [[nodiscard]] int descriptor() const { return descriptor_; }

    /// Hints that the system should read `part` of bytes() ahead.
    void will_need(std::span<const std::byte> part) const;
    /// Hints that the system may free the memory of `part` of bytes(). Reading it again loads it from the file.
    void done_with(std::span<const std::byte> part) const;

private:
    const std::byte* data_ = nullptr;
    std::size_t size_ = 0;
    int descriptor_ = -1;
};

}  // namespace mha2mla
