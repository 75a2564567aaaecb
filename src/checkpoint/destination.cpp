#include "destination.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "../support/file_operations.hpp"
#include "../support/output_file.hpp"
#include "exchange.hpp"
#include "mha2mla/checkpoint_writer.hpp"
#include "mha2mla/error.hpp"

namespace mha2mla {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view kJournal = "mha2mla.journal.jsonl", kAlignment = "mha2mla.alignment.safetensors";
/// What a process that is killed may leave of a file that it writes.
constexpr std::string_view kIncomplete = ".incomplete";
constexpr std::array<std::string_view, 5> kProgress = {kAlignment, kRunFile, kRunLog, kRunState, kBestState};
/// The time within which a killed process must have ended.
constexpr std::chrono::seconds kDying(3);

[[noreturn]] void fail(const fs::path& path, const char* action, int error) {
    throw Error(ErrorCode::io, path.string() + ": cannot " + action + ": " + std::strerror(error));
}

bool is_filled(const fs::path& file) {
    std::error_code error;
    return fs::is_regular_file(fs::symlink_status(file, error)) && fs::file_size(file, error) > 0 && !error;
}

/// Whether a command that ended early left what it, or settle(), can go on with.
bool holds_unfinished(const fs::path& directory) {
    return exchange_began(directory) || is_filled(directory / kJournal) || is_filled(directory / kRunFile);
}

}  // namespace

fs::path journal_path(const fs::path& directory) { return directory / kJournal; }
fs::path alignment_path(const fs::path& directory) { return directory / kAlignment; }

bool is_progress_name(std::string_view name) {
    if (name.ends_with(kIncomplete)) name.remove_suffix(kIncomplete.size());
    return std::ranges::find(kProgress, name) != kProgress.end();
}

bool is_unfinished_name(std::string_view name) {
    return is_exchange_name(name) || name == kJournal || is_progress_name(name);
}

void check_only_unfinished(const fs::path& directory) {
    std::vector<std::string> names;
    const int error = files::list(directory, names);
    if (error != 0 && error != ENOTDIR) fail(directory, "list", error);
    if (error != 0 || !std::ranges::all_of(names, is_unfinished_name)) check_output_directory(directory, false);
}

void check_new_output(const fs::path& directory) {
    if (holds_unfinished(directory)) {
        throw Error(ErrorCode::io, directory.string() + ": holds an unfinished output of another command",
                    Remedy::overwrite);
    }
    check_only_unfinished(directory);
}

void remove_left_over(const fs::path& directory) {
    if (is_filled(journal_path(directory))) return;  // of a conversion that is to replace what is there
    std::vector<std::string> names;
    if (const int error = files::list(directory, names)) fail(directory, "list", error);
    const bool any = std::ranges::any_of(names, [](const auto& n) { return n == kJournal || is_progress_name(n); });
    if (!any) return;
    const DestinationLock lock(directory);
    if (!is_filled(journal_path(directory))) lock.forget_unfinished();  // or another process has begun meanwhile
}

void check_free_space(const fs::path& directory, std::uint64_t needed) {
    struct statvfs status {};
    if (::statvfs(directory.c_str(), &status) != 0) return;  // writing will report a full disk
    const std::uint64_t free_bytes = std::uint64_t{status.f_bavail} * status.f_frsize;
    if (free_bytes < needed) {
        throw Error(ErrorCode::io, directory.string() + ": the output needs " + std::to_string(needed) +
                                       " bytes, but only " + std::to_string(free_bytes) +
                                       " are free; free some space or choose another place");
    }
}

DestinationLock::DestinationLock(fs::path directory) : directory_(std::move(directory)) {
    // A killed process may still be writing; it releases the lock when it ends.
    const auto end = std::chrono::steady_clock::now() + kDying;
    try {
        while (!open_and_lock()) {
            if (std::chrono::steady_clock::now() >= end) {
                throw Error(ErrorCode::io, directory_.string() +
                                               ": another process is writing into this directory; wait for it "
                                               "or choose another place");
            }
            std::this_thread::sleep_for(std::chrono::milliseconds(50));
        }
    } catch (...) {
        close();
        if (created_directory_) (void)files::remove(directory_);
        throw;
    }
}

/// @return false if another process holds the lock, or removed the file in the meantime.
bool DestinationLock::open_and_lock() {
    close();
    std::error_code error;
    created_directory_ = fs::create_directories(directory_, error) || created_directory_;
    if (error) throw Error(ErrorCode::io, directory_.string() + ": cannot create directory: " + error.message());
    const fs::path path = journal_path(directory_);
    // A link would be followed to a file that is none of ours.
    const int failure = files::open(path, O_RDWR | O_CREAT | O_APPEND | O_NOFOLLOW, descriptor_);
    if (failure == ENOENT) return false;  // the directory was removed again
    if (failure != 0) fail(path, "create", failure);
    const bool locked = ::flock(descriptor_, LOCK_EX | LOCK_NB) == 0;
    if (!locked && errno == EWOULDBLOCK) return false;
    // Who held the lock before removes the file before the lock: a lock on that file excludes nobody.
    struct stat ours {};
    struct stat named {};
    return ::fstat(descriptor_, &ours) == 0 && ::lstat(path.c_str(), &named) == 0 && ours.st_dev == named.st_dev &&
           ours.st_ino == named.st_ino;
}

void DestinationLock::forget_unfinished() const {
    // By name: listing the directory would take a descriptor, of which there may be none left.
    for (const std::string_view name : kProgress) {
        for (const std::string_view ending : {std::string_view(), kIncomplete}) {
            const fs::path path = directory_ / (std::string(name) + std::string(ending));
            if (const int error = files::remove(path)) fail(path, "remove", error);
        }
    }
    // The journal goes last: it says what the files are that wait there.
    const fs::path staging = staging_path(directory_);
    if (const int error = files::remove_all(staging)) fail(staging, "remove", error);
    if (::ftruncate(descriptor_, 0) != 0) fail(journal_path(directory_), "cut off", errno);
}

void DestinationLock::close() {
    if (descriptor_ >= 0) ::close(std::exchange(descriptor_, -1));
}

DestinationLock::~DestinationLock() {
    struct stat status {};
    if (::fstat(descriptor_, &status) == 0 && status.st_size == 0) {
        (void)files::remove(journal_path(directory_));
        if (created_directory_) (void)files::remove(directory_);
        flush_directory(directory_);
    }
    close();
}

}  // namespace mha2mla
