#include "spill_file.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string>
#include <system_error>

#include "mha2mla/error.hpp"
#include "mha2mla/memory.hpp"

namespace mha2mla {
namespace {

constexpr const char* kWhatToDo = "; set TMPDIR to a directory with more space, or allow more memory";

std::filesystem::path default_directory() {
    const char* chosen = std::getenv("TMPDIR");  // NOLINT(concurrency-mt-unsafe): this program never changes it
    if (chosen != nullptr && *chosen != '\0') return chosen;
    return ::access("/var/tmp", W_OK) == 0 ? "/var/tmp" : "/tmp";
}

/// Opens a file without a name. @return -1 with errno set on failure.
int open_unnamed(const std::filesystem::path& directory) {
    const int descriptor = ::open(directory.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (descriptor >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL)) return descriptor;
    std::string name = (directory / "mha2mla-spill-XXXXXX").string();  // file systems without O_TMPFILE
    const int named = ::mkostemp(name.data(), O_CLOEXEC);
    if (named >= 0) ::unlink(name.c_str());
    return named;
}

}  // namespace

SpillFile::SpillFile(const std::filesystem::path& directory, std::uint64_t bytes)
    : directory_(directory.empty() ? default_directory() : directory) {
    std::error_code failure;
    const auto space = std::filesystem::space(directory_, failure);
    if (!failure && space.available < bytes) {
        throw Error(ErrorCode::io, directory_.string() + ": hidden states need " + memory_text(bytes) +
                                       " of disk space, but only " + memory_text(space.available) + " are free there" +
                                       kWhatToDo);
    }
    descriptor_ = open_unnamed(directory_);
    if (descriptor_ < 0) {
        throw Error(ErrorCode::io, directory_.string() + ": cannot create a temporary file for hidden states: " +
                                       std::strerror(errno) + kWhatToDo);
    }
}

SpillFile::~SpillFile() { ::close(descriptor_); }

void SpillFile::write(std::uint64_t offset, std::span<const std::byte> data) {
    while (!data.empty()) {
        const ssize_t done = ::pwrite(descriptor_, data.data(), data.size(), static_cast<off_t>(offset));
        if (done < 0 && errno == EINTR) continue;
        if (done <= 0) {
            throw Error(ErrorCode::io, directory_.string() + ": cannot write hidden states to a temporary file: " +
                                           std::strerror(done < 0 ? errno : ENOSPC) + kWhatToDo);
        }
        data = data.subspan(static_cast<std::size_t>(done));
        offset += static_cast<std::uint64_t>(done);
    }
}

void SpillFile::read(std::uint64_t offset, std::span<std::byte> data) const {
    while (!data.empty()) {
        const ssize_t done = ::pread(descriptor_, data.data(), data.size(), static_cast<off_t>(offset));
        if (done < 0 && errno == EINTR) continue;
        if (done <= 0) {
            throw Error(ErrorCode::io, directory_.string() + ": cannot read hidden states from a temporary file: " +
                                           (done < 0 ? std::strerror(errno) : "it is too short"));
        }
        data = data.subspan(static_cast<std::size_t>(done));
        offset += static_cast<std::uint64_t>(done);
    }
}

void SpillFile::will_need(std::uint64_t offset, std::uint64_t bytes) const {
    ::posix_fadvise(descriptor_, static_cast<off_t>(offset), static_cast<off_t>(bytes), POSIX_FADV_WILLNEED);
}

}  // namespace mha2mla
