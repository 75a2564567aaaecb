#include "file_operations.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <string_view>

namespace mha2mla::files {
namespace fs = std::filesystem;
namespace {

int injected(Operation operation) {
    const auto asked = fault.load();
    return asked == nullptr ? 0 : asked(operation);
}

int result_of(int status) { return status == 0 ? 0 : errno; }

}  // namespace

int open(const fs::path& path, int flags, int& descriptor) {
    descriptor = -1;
    if (const int error = injected(Operation::open)) return error;
    descriptor = ::open(path.c_str(), flags | O_CLOEXEC, 0666);
    return descriptor < 0 ? errno : 0;
}

int flush(int descriptor) {
    if (const int error = injected(Operation::flush)) return error;
    return result_of(::fsync(descriptor));
}

int rename(const fs::path& from, const fs::path& to) {
    if (const int error = injected(Operation::rename)) return error;
    return result_of(::rename(from.c_str(), to.c_str()));
}

int remove(const fs::path& path) {
    if (const int error = injected(Operation::remove)) return error;
    const int error = result_of(std::remove(path.c_str()));
    return error == ENOENT ? 0 : error;
}

int remove_all(const fs::path& path) {
    struct stat status {};
    if (::lstat(path.c_str(), &status) != 0) return errno == ENOENT ? 0 : errno;
    if (S_ISDIR(status.st_mode)) {
        std::vector<std::string> names;
        if (const int error = list(path, names)) return error;
        for (const auto& name : names) {
            if (const int error = files::remove_all(path / name)) return error;
        }
    }
    return files::remove(path);
}

int make_directory(const fs::path& path) {
    if (const int error = injected(Operation::make_directory)) return error;
    if (::mkdir(path.c_str(), 0777) == 0) return 0;
    struct stat status {};
    const int error = errno;
    return error == EEXIST && ::lstat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode) ? 0 : error;
}

int list(const fs::path& directory, std::vector<std::string>& names) {
    names.clear();
    if (const int error = injected(Operation::list)) return error;
    DIR* const open_directory = ::opendir(directory.c_str());
    if (open_directory == nullptr) return errno == ENOENT ? 0 : errno;
    int error = 0;
    for (;;) {
        errno = 0;
        const dirent* entry = ::readdir(open_directory);  // NOLINT(concurrency-mt-unsafe): a stream of its own
        if (entry == nullptr) {
            error = errno;
            break;
        }
        const std::string_view name = static_cast<const char*>(entry->d_name);
        if (name != "." && name != "..") names.emplace_back(name);
    }
    ::closedir(open_directory);
    std::sort(names.begin(), names.end());
    return error;
}

bool exists(const fs::path& path) {
    struct stat status {};
    return ::lstat(path.c_str(), &status) == 0;
}

}  // namespace mha2mla::files
