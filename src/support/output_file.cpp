#include "output_file.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <new>
#include <thread>
#include <utility>
#include <vector>

#include "file_operations.hpp"
#include "hash.hpp"
#include "mapping_table.hpp"
#include "mha2mla/error.hpp"
#include "mha2mla/mapped_file.hpp"

namespace mha2mla {
namespace fs = std::filesystem;
namespace {

[[noreturn]] void fail(const fs::path& path, const char* action, int error) {
    std::string message = path.string() + ": cannot " + action + ": " + std::strerror(error);
    if (error == ENOSPC || error == EDQUOT || error == EFBIG) message += "; free some space or choose another place";
    throw Error(ErrorCode::io, message);
}

/// The most bytes of one system call. After each call the kernel is asked to start writing to disk, so that the final
/// flush is short.
constexpr std::size_t kMaxTransfer = std::size_t{1} << 23U;
/// The time within which a killed process must have ended.
constexpr std::chrono::seconds kDying(3);
/// The smallest range for which O_DIRECT is used.
constexpr std::size_t kDirectLeast = std::size_t{1} << 19U;

void begin_writeback(int descriptor, std::uint64_t offset, std::size_t count) {
    // Only a hint; file systems without it write later.
    (void)::sync_file_range(descriptor, static_cast<off_t>(offset), static_cast<off_t>(count), SYNC_FILE_RANGE_WRITE);
}

}  // namespace

std::span<std::byte> CopyBuffer::bytes() {
    if (data_ == nullptr) {
        data_.reset(static_cast<std::byte*>(std::aligned_alloc(kAlignment, kMaxTransfer)));
        if (data_ == nullptr) throw std::bad_alloc();
    }
    return {data_.get(), kMaxTransfer};
}

void CopyBuffer::Free::operator()(std::byte* data) const { std::free(data); }

OutputFile::OutputFile(fs::path final_path, Start start, fs::path temporary_path)
    : final_path_(std::move(final_path)), temporary_path_(std::move(temporary_path)) {
    if (temporary_path_.empty()) temporary_path_ = final_path_.string() + ".incomplete";
    const auto end = std::chrono::steady_clock::now() + kDying;
    while (!open_and_lock()) {
        if (std::chrono::steady_clock::now() >= end) {
            close();
            throw Error(ErrorCode::io,
                        final_path_.string() + ": another process is writing it; wait for it or choose another name");
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
    if (start == Start::empty && ::ftruncate(descriptor_, 0) != 0) {
        const int error = errno;
        close();
        fail(temporary_path_, "empty", error);
    }
    direct_ = ::open(temporary_path_.c_str(), O_WRONLY | O_DIRECT | O_CLOEXEC | O_NOFOLLOW);
}

/// @return false if another process has the file, or has just moved or removed it.
bool OutputFile::open_and_lock() {
    close();
    // A link would be followed to a file that is none of ours.
    const int error = files::open(temporary_path_, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK, descriptor_);
    if (error != 0) fail(temporary_path_, "create", error);
    struct stat ours {};
    struct stat named {};
    const bool known = ::fstat(descriptor_, &ours) == 0;
    if (known && !S_ISREG(ours.st_mode)) {
        close();
        throw Error(ErrorCode::io, temporary_path_.string() + ": is no file, but in the way of one; move it away");
    }
    // File systems without locks have one user.
    if (::flock(descriptor_, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) return false;
    return known && ::lstat(temporary_path_.c_str(), &named) == 0 && ours.st_dev == named.st_dev &&
           ours.st_ino == named.st_ino;
}

OutputFile::~OutputFile() {
    if (descriptor_ < 0) return;
    ::unlink(temporary_path_.c_str());  // while it is locked
    close();
}

OutputFile::OutputFile(OutputFile&& other) noexcept
    : final_path_(std::move(other.final_path_)),
      temporary_path_(std::move(other.temporary_path_)),
      descriptor_(std::exchange(other.descriptor_, -1)),
      direct_(std::exchange(other.direct_, -1)) {}

void OutputFile::close() {
    if (direct_ >= 0) ::close(std::exchange(direct_, -1));
    if (descriptor_ >= 0) ::close(std::exchange(descriptor_, -1));
}

void OutputFile::write_at(std::uint64_t offset, std::span<const std::byte> data) {
    bool touched = false;
    while (!data.empty()) {
        const auto written =
            ::pwrite(descriptor_, data.data(), std::min(data.size(), kMaxTransfer), static_cast<off_t>(offset));
        if (written < 0 && errno == EINTR) continue;
        // The system does not read what a mapped file has lost; once it was touched, there are zeros.
        if (written < 0 && errno == EFAULT && !std::exchange(touched, true) && touch_pages(data)) continue;
        if (written <= 0) fail(final_path_, "write", written < 0 ? errno : ENOSPC);
        begin_writeback(descriptor_, offset, static_cast<std::size_t>(written));
        offset += static_cast<std::uint64_t>(written);
        data = data.subspan(static_cast<std::size_t>(written));
    }
}

bool OutputFile::write_direct(std::uint64_t offset, std::span<const std::byte> aligned) const {
    while (!aligned.empty()) {
        const auto written = ::pwrite(direct_, aligned.data(), aligned.size(), static_cast<off_t>(offset));
        if (written < 0 && errno == EINTR) continue;
        if (written < 0 && (errno == EINVAL || errno == EOPNOTSUPP)) return false;
        if (written <= 0) fail(final_path_, "write", written < 0 ? errno : ENOSPC);
        offset += static_cast<std::uint64_t>(written);
        aligned = aligned.subspan(static_cast<std::size_t>(written));
        if (static_cast<std::size_t>(written) % CopyBuffer::kAlignment != 0) return aligned.empty();
    }
    return true;
}

template <typename Fill>
std::size_t OutputFile::write_pages(std::uint64_t offset, std::span<const std::byte> data, CopyBuffer& buffer,
                                    const Fill& fill) {
    if (direct_ < 0 || data.size() < kDirectLeast) return 0;
    // The pages at both ends may be shared with other tensors, so they are written through the page cache.
    std::size_t done = (CopyBuffer::kAlignment - offset % CopyBuffer::kAlignment) % CopyBuffer::kAlignment;
    write_at(offset, data.first(done));
    const auto memory = buffer.bytes();
    while (data.size() - done >= CopyBuffer::kAlignment) {
        const std::size_t whole = (data.size() - done) / CopyBuffer::kAlignment * CopyBuffer::kAlignment;
        const auto part = memory.first(std::min(whole, memory.size()));
        if (!fill(done, part) || !write_direct(offset + done, part)) break;
        done += part.size();
    }
    return done;
}

void OutputFile::write_at(std::uint64_t offset, std::span<const std::byte> data, CopyBuffer& buffer) {
    const std::size_t done = write_pages(offset, data, buffer, [&](std::size_t position, std::span<std::byte> part) {
        std::copy_n(data.begin() + static_cast<std::ptrdiff_t>(position), part.size(), part.begin());
        return true;
    });
    write_at(offset + done, data.subspan(done));
}

std::string OutputFile::copy_at(std::uint64_t offset, int source_descriptor, std::uint64_t source_offset,
                                std::span<const std::byte> mapped, CopyBuffer& buffer) {
    Hasher hasher;
    std::size_t hashed = 0;
    const std::size_t done = write_pages(offset, mapped, buffer, [&](std::size_t position, std::span<std::byte> part) {
        const auto got =
            ::pread(source_descriptor, part.data(), part.size(), static_cast<off_t>(source_offset + position));
        if (got != static_cast<ssize_t>(part.size())) return false;
        hasher.add(mapped.subspan(hashed, position - hashed));
        hasher.add(part);
        hashed = position + part.size();
        return true;
    });
    copy_in_kernel(offset + done, source_descriptor, source_offset + done, mapped.subspan(done));
    hasher.add(mapped.subspan(hashed));
    return hasher.hex();
}

void OutputFile::copy_in_kernel(std::uint64_t offset, int source_descriptor, std::uint64_t source_offset,
                                std::span<const std::byte> mapped) {
    auto in = static_cast<off_t>(source_offset);
    auto out = static_cast<off_t>(offset);
    while (!mapped.empty()) {
        const auto copied =
            ::copy_file_range(source_descriptor, &in, descriptor_, &out, std::min(mapped.size(), kMaxTransfer), 0);
        if (copied < 0 && errno == EINTR) continue;
        if (copied <= 0) {
            // Not every pair of file systems supports copy_file_range(). The rest is written from the mapping, which
            // also reports a full disk.
            write_at(static_cast<std::uint64_t>(out), mapped);
            return;
        }
        begin_writeback(descriptor_, static_cast<std::uint64_t>(out - copied), static_cast<std::size_t>(copied));
        mapped = mapped.subspan(static_cast<std::size_t>(copied));
    }
}

void OutputFile::resize(std::uint64_t size) {
    if (::ftruncate(descriptor_, static_cast<off_t>(size)) != 0) fail(final_path_, "resize", errno);
}

std::string OutputFile::hash_at(std::uint64_t offset, std::uint64_t size) const {
    Hasher hasher;
    std::vector<std::byte> buffer(static_cast<std::size_t>(std::min<std::uint64_t>(size, 1U << 20U)));
    while (size > 0) {
        const auto got = ::pread(descriptor_, buffer.data(), std::min<std::uint64_t>(size, buffer.size()),
                                 static_cast<off_t>(offset));
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) fail(final_path_, "read back", errno);
        if (got == 0) break;
        hasher.add(std::span(buffer).first(static_cast<std::size_t>(got)));
        offset += static_cast<std::uint64_t>(got);
        size -= static_cast<std::uint64_t>(got);
    }
    return hasher.hex();
}

std::uint64_t OutputFile::size() const {
    struct stat status {};
    if (::fstat(descriptor_, &status) != 0) fail(final_path_, "read the size of", errno);
    return static_cast<std::uint64_t>(status.st_size);
}

void OutputFile::flush() {
    if (const int error = files::flush(descriptor_)) fail(final_path_, "flush", error);
}

void OutputFile::keep() { close(); }

void OutputFile::publish() {
    check_mapped_files();
    flush();
    const int error = files::rename(temporary_path_, final_path_);  // while it is locked
    if (error != 0) ::unlink(temporary_path_.c_str());
    close();
    if (error != 0) fail(final_path_, "finish", error);
}

void flush_directory(const fs::path& directory) {
    const int descriptor = ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (descriptor < 0) return;  // a file system without directory handles has nothing to flush
    ::fsync(descriptor);
    ::close(descriptor);
}

}  // namespace mha2mla
