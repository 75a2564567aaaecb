#include "prediction_file.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include "../support/file_operations.hpp"
#include "mha2mla/error.hpp"
#include "mha2mla/mapped_file.hpp"

namespace mha2mla {
namespace {

[[noreturn]] void refuse_other_process(const std::filesystem::path& path) {
    throw Error(ErrorCode::io,
                path.string() + ": another process writes predictions here; wait for it or choose another place");
}

}  // namespace

PredictionsLock::PredictionsLock(std::filesystem::path directory) : directory_(std::move(directory)) {
    if (const int error = files::open(directory_, O_RDONLY | O_DIRECTORY, descriptor_)) {
        throw Error(ErrorCode::io, directory_.string() + ": cannot open: " + std::strerror(error));
    }
    try {
        share();
    } catch (...) {
        ::close(descriptor_);
        throw;
    }
}

PredictionsLock::~PredictionsLock() { ::close(descriptor_); }

void PredictionsLock::take_alone() const { lock(LOCK_EX); }
void PredictionsLock::share() const { lock(LOCK_SH); }

void PredictionsLock::lock(int operation) const {
    // File systems without locks have one user.
    if (::flock(descriptor_, operation | LOCK_NB) != 0 && errno == EWOULDBLOCK) refuse_other_process(directory_);
}

PredictionFile::PredictionFile(std::filesystem::path path, Start start) : path_(std::move(path)) {
    // A link would be followed to a file that is none of ours.
    const int error = files::open(path_, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_NONBLOCK, descriptor_);
    if (error != 0) fail("open", error);
    try {
        struct stat status {};
        if (::fstat(descriptor_, &status) != 0 || !S_ISREG(status.st_mode)) {
            throw Error(ErrorCode::io, path_.string() + ": is no file to write predictions to");
        }
        lock();
        if (start == Start::resume) {
            cut_after_last_line();
        } else if (::ftruncate(descriptor_, 0) != 0) {
            fail("empty", errno);
        }
    } catch (...) {
        ::close(descriptor_);
        throw;
    }
}

PredictionFile::~PredictionFile() { ::close(descriptor_); }

void PredictionFile::fail(const char* action, int error) const {
    std::string message = path_.string() + ": cannot " + action + ": " + std::strerror(error);
    if (error == ENOSPC || error == EDQUOT || error == EFBIG) message += "; free some space, and run the same again";
    throw Error(ErrorCode::io, message);
}

void PredictionFile::lock() const {
    if (::flock(descriptor_, LOCK_EX | LOCK_NB) == 0) return;
    if (errno != EWOULDBLOCK) fail("lock", errno);
    refuse_other_process(path_);
}

void PredictionFile::cut_after_last_line() const {
    std::size_t size = 0, end = 0;
    {  // the mapping must be gone before the file is shorter
        const MappedFile file(path_);
        const std::string_view text(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
        size = text.size();
        end = text.rfind('\n') + 1;  // 0 if there is no whole line
    }
    if (end < size && ::ftruncate(descriptor_, static_cast<off_t>(end)) != 0) fail("cut off", errno);
}

void PredictionFile::append(std::string_view line) {
    while (!line.empty()) {
        const auto written = ::write(descriptor_, line.data(), line.size());
        if (written < 0 && errno == EINTR) continue;
        if (written <= 0) fail("write", written < 0 ? errno : ENOSPC);
        line.remove_prefix(static_cast<std::size_t>(written));
    }
    if (const int error = files::flush(descriptor_)) fail("flush", error);
}

}  // namespace mha2mla
