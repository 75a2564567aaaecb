#include "text_input.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "mha2mla/error.hpp"

namespace mha2mla::tool {
namespace fs = std::filesystem;
namespace {

[[noreturn]] void fail(const std::string& name, const std::string& what) {
    throw Error(ErrorCode::io, name + ": " + what + ": " + std::strerror(errno));
}

/// A file that nothing else sees. Its descriptor stays open as long as the process.
int unnamed_file(const std::string& name) {
    std::string path = (fs::temp_directory_path() / "mha2mla-text-XXXXXX").string();
    const int descriptor = ::mkostemp(path.data(), O_CLOEXEC);
    if (descriptor < 0) fail(name, "cannot make a copy in " + fs::temp_directory_path().string());
    ::unlink(path.c_str());
    return descriptor;
}

/// No text is longer, but a device such as /dev/zero has no end.
constexpr std::uint64_t kMostPiped = std::uint64_t{4} << 30U;

void copy(int from, int to, const std::string& name) {
    std::array<char, 1 << 16> buffer{};
    for (std::uint64_t bytes = 0;; bytes += buffer.size()) {
        if (bytes > kMostPiped) {
            throw Error(ErrorCode::unsupported, name + ": more than 4 GiB come from it; put the text in a file");
        }
        const ssize_t count = ::read(from, buffer.data(), buffer.size());
        if (count < 0 && errno == EINTR) continue;
        if (count < 0) fail(name, "cannot read");
        if (count == 0) return;
        for (ssize_t done = 0; done < count;) {
            const ssize_t written = ::write(to, buffer.data() + done, static_cast<std::size_t>(count - done));
            if (written < 0 && errno != EINTR) fail(name, "cannot keep a copy");
            if (written > 0) done += written;
        }
    }
}

}  // namespace

std::string readable_text(const std::string& path) {
    std::error_code ignored;
    const bool standard_input = path == "-" && !fs::exists(path, ignored);
    const fs::file_status status = fs::status(path, ignored);
    const bool stream = fs::is_fifo(status) || fs::is_socket(status) || fs::is_character_file(status);
    if (!standard_input && !stream) return path;
    const std::string name = standard_input ? "standard input" : path;
    const int from = standard_input ? STDIN_FILENO : ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (from < 0) fail(name, "cannot open");
    const int to = unnamed_file(name);
    copy(from, to, name);
    if (!standard_input) ::close(from);
    return "/proc/self/fd/" + std::to_string(to);
}

}  // namespace mha2mla::tool
