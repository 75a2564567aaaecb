#include "mha2mla/mapped_file.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <functional>
#include <utility>

#include "mapping_table.hpp"
#include "mha2mla/error.hpp"

namespace mha2mla {
namespace {

/// Calls madvise() for all pages that overlap `part` of a mapping. Bytes of the first and last page outside `part` are
/// included; this does not change them, they may only have to be read again.
void advise(std::span<const std::byte> part, int advice) {
    if (part.empty()) return;
    static const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
    const auto begin = reinterpret_cast<std::uintptr_t>(part.data());
    const std::uintptr_t start = begin - begin % page;
    ::madvise(reinterpret_cast<void*>(start), begin + part.size() - start, advice);
}

}  // namespace

MappedFile::MappedFile(const std::filesystem::path& path) {
    // Without O_NONBLOCK, opening a named pipe would block before it can be refused.
    descriptor_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (descriptor_ < 0) {
        throw Error(ErrorCode::io, path.string() + ": cannot open: " + std::strerror(errno));
    }
    struct stat status {};
    const char* problem = nullptr;
    if (::fstat(descriptor_, &status) != 0) {
        problem = std::strerror(errno);
    } else if (!S_ISREG(status.st_mode)) {
        problem = "not a regular file";
    } else if (status.st_size > 0) {
        size_ = static_cast<std::size_t>(status.st_size);
        void* address = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, descriptor_, 0);
        if (address == MAP_FAILED) {
            problem = std::strerror(errno);
        } else {
            data_ = static_cast<const std::byte*>(address);
        }
    }
    if (problem != nullptr) {
        ::close(descriptor_);
        throw Error(ErrorCode::io, path.string() + ": cannot read: " + problem);
    }
    if (data_ != nullptr) mapping_ = enter_mapping(bytes(), descriptor_, path.string());
}

MappedFile::~MappedFile() {
    if (mapping_ != nullptr) leave_mapping(*mapping_);
    if (data_ != nullptr)
        ::munmap(const_cast<std::byte*>(data_), size_);  // NOLINT(cppcoreguidelines-pro-type-const-cast)
    if (descriptor_ >= 0) ::close(descriptor_);
}

bool MappedFile::holds(std::span<const std::byte> part) const {
    const std::less_equal<> not_before;
    return data_ != nullptr && not_before(data_, part.data()) && not_before(part.data() + part.size(), data_ + size_);
}

// Copies of what a file holds are no pages of it.
void MappedFile::will_need(std::span<const std::byte> part) const {
    if (holds(part)) advise(part, MADV_WILLNEED);
}
void MappedFile::done_with(std::span<const std::byte> part) const {
    if (!holds(part)) return;
    note_lost_page(*mapping_);
    advise(part, MADV_DONTNEED);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      descriptor_(std::exchange(other.descriptor_, -1)),
      mapping_(std::exchange(other.mapping_, nullptr)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(descriptor_, other.descriptor_);
    std::swap(mapping_, other.mapping_);
    return *this;
}

}  // namespace mha2mla
