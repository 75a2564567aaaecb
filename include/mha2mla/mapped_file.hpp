#pragma once
/// A file as read-only memory.

#include <cstddef>
#include <filesystem>
#include <span>

namespace mha2mla {

struct Mapping;

/// A read-only memory map of a whole regular file. If another program cuts the file short meanwhile, to read what is
/// gone ends the process (SIGBUS), except after survive_shortened_files().
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
    /// Whether `part` is a part of bytes(), and not of a copy.
    [[nodiscard]] bool holds(std::span<const std::byte> part) const;
    [[nodiscard]] int descriptor() const { return descriptor_; }

    /// Hints that the system should read `part` of bytes() ahead.
    void will_need(std::span<const std::byte> part) const;
    /// Hints that the system may free the memory of `part` of bytes(). Reading it again loads it from the file.
    void done_with(std::span<const std::byte> part) const;

private:
    const std::byte* data_ = nullptr;
    std::size_t size_ = 0;
    int descriptor_ = -1;
    Mapping* mapping_ = nullptr;
};

/// Lets the process read zeros where a mapped file has been cut short; check_mapped_files() then throws. It is for
/// programs, at their start, because it replaces the handler of SIGBUS of the process; other faults than those of
/// mapped files still go to the handler before it.
void survive_shortened_files();

/// Called where a piece of work ends, before its result is kept or shown.
/// @throws Error{io} naming a mapped file of which a part that had been read is gone. A file that was closed since then
///         is named once.
void check_mapped_files();

}  // namespace mha2mla
