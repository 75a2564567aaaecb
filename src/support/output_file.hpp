#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace mha2mla {

/// Memory for writing straight to disk, aligned for disks. Allocated when it is first needed.
class CopyBuffer {
public:
    static constexpr std::size_t kAlignment = 4096;
    [[nodiscard]] std::span<std::byte> bytes();

private:
    struct Free {
        void operator()(std::byte* data) const;
    };
    std::unique_ptr<std::byte, Free> data_;
};

/// A file that is written under "<name>.incomplete" and gets its name by publish(). Destroyed before that, it is
/// removed. write_at and copy_at may be called from several threads for separate ranges.
class OutputFile {
public:
    enum class Start : std::uint8_t {
        empty,
        resume,  ///< with what an earlier run left under the temporary name, if anything
    };
    /// @throws Error{io}
    explicit OutputFile(std::filesystem::path final_path, Start start = Start::empty);
    ~OutputFile();
    OutputFile(OutputFile&& other) noexcept;
    OutputFile(const OutputFile&) = delete;
    OutputFile& operator=(const OutputFile&) = delete;
    OutputFile& operator=(OutputFile&&) = delete;

    /// @throws Error{io} naming the file, for example when the disk is full.
    void write_at(std::uint64_t offset, std::span<const std::byte> data);
    /// The same; most of a large range goes through `buffer` straight to disk (O_DIRECT), which neither fills the page
    /// cache nor waits for it.
    void write_at(std::uint64_t offset, std::span<const std::byte> data, CopyBuffer& buffer);
    /// Copies from another file's descriptor; `mapped` is the same range in memory. Most of a large range goes straight
    /// to disk in the same way; the rest, and all of it where the file system has no such way, inside the kernel.
    /// @return hash of what was copied, taken on the way.
    std::string copy_at(std::uint64_t offset, int source_descriptor, std::uint64_t source_offset,
                        std::span<const std::byte> mapped, CopyBuffer& buffer);
    /// Cuts the file off, or lengthens it by zeros.
    void resize(std::uint64_t size);
    /// Hash of a range, read back from the file; of nothing in its place where the file is shorter.
    [[nodiscard]] std::string hash_at(std::uint64_t offset, std::uint64_t size) const;
    [[nodiscard]] std::uint64_t size() const;
    /// Flushes the data to disk.
    void flush();
    /// flush(), then renames to the final name.
    void publish();
    /// Closes it and leaves it under its temporary name, for Start::resume.
    void keep();

private:
    [[nodiscard]] std::filesystem::path temporary_path() const;
    void copy_in_kernel(std::uint64_t offset, int source_descriptor, std::uint64_t source_offset,
                        std::span<const std::byte> mapped);
    /// Whole pages of `data`, in parts that fill(position, part) provides unless it returns false.
    /// @return bytes written, with those before the first whole page; 0 where that is not possible or worth it.
    template <typename Fill>
    std::size_t write_pages(std::uint64_t offset, std::span<const std::byte> data, CopyBuffer& buffer,
                            const Fill& fill);
    [[nodiscard]] bool write_direct(std::uint64_t offset, std::span<const std::byte> aligned) const;
    void close();

    std::filesystem::path final_path_;
    int descriptor_ = -1;
    int direct_ = -1;  // the same file with O_DIRECT, where that exists
};

/// Flushes a directory's entries, so that renames survive a power cut.
void flush_directory(const std::filesystem::path& directory);

}  // namespace mha2mla
