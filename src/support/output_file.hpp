#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace mha2mla {

/// A buffer for direct writes (O_DIRECT), aligned as they require and allocated on first use.
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

/// A file that is written as "<name>.incomplete", by one process at a time, and renamed by publish(). The destructor
/// removes a file that was neither published nor kept. Several threads may call write_at and copy_at for separate
/// ranges.
class OutputFile {
public:
    enum class Start : std::uint8_t {
        empty,
        resume,  ///< with the content that an earlier run left under the temporary name, if any
    };
    /// @param temporary_path another than "<final_path>.incomplete".
    /// @throws Error{io}
    explicit OutputFile(std::filesystem::path final_path, Start start = Start::empty,
                        std::filesystem::path temporary_path = {});
    ~OutputFile();
    OutputFile(OutputFile&& other) noexcept;
    OutputFile(const OutputFile&) = delete;
    OutputFile& operator=(const OutputFile&) = delete;
    OutputFile& operator=(OutputFile&&) = delete;

    /// @throws Error{io} naming the file, for example when the disk is full.
    void write_at(std::uint64_t offset, std::span<const std::byte> data);
    /// The same, but most of a large range is written directly to disk (O_DIRECT) through `buffer`, which bypasses the
    /// page cache.
    void write_at(std::uint64_t offset, std::span<const std::byte> data, CopyBuffer& buffer);
    /// Copies a range of another file; `mapped` is the same range in memory. Most of a large range is written directly
    /// to disk; the rest, or everything if the file system does not support O_DIRECT, is copied inside the kernel.
    /// @return hash of the copied bytes.
    std::string copy_at(std::uint64_t offset, int source_descriptor, std::uint64_t source_offset,
                        std::span<const std::byte> mapped, CopyBuffer& buffer);
    /// Truncates the file, or extends it with zeros.
    void resize(std::uint64_t size);
    /// Hash of a range as read back from the file. If the file is shorter, the hash is that of the bytes that exist.
    [[nodiscard]] std::string hash_at(std::uint64_t offset, std::uint64_t size) const;
    [[nodiscard]] std::uint64_t size() const;
    /// Flushes the data to disk.
    void flush();
    /// Flushes the data and renames the file to its final name.
    void publish();
    /// Closes the file and leaves it under its temporary name, for Start::resume.
    void keep();

private:
    void copy_in_kernel(std::uint64_t offset, int source_descriptor, std::uint64_t source_offset,
                        std::span<const std::byte> mapped);
    /// Writes the whole pages of `data` directly, in parts that fill(position, part) supplies until it returns false.
    /// @return bytes written, counting those before the first whole page; 0 if direct writes are not available or the
    ///         range is small.
    template <typename Fill>
    std::size_t write_pages(std::uint64_t offset, std::span<const std::byte> data, CopyBuffer& buffer,
                            const Fill& fill);
    [[nodiscard]] bool write_direct(std::uint64_t offset, std::span<const std::byte> aligned) const;
    bool open_and_lock();
    void close();

    std::filesystem::path final_path_, temporary_path_;
    int descriptor_ = -1;
    int direct_ = -1;  // the same file opened with O_DIRECT; -1 if not supported
};

/// Flushes a directory's entries to disk, so that renames survive a power failure.
void flush_directory(const std::filesystem::path& directory);

}  // namespace mha2mla
