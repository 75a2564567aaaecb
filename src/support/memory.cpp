#include "mha2mla/memory.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <limits>
#include <optional>

namespace mha2mla {
namespace {

constexpr std::uint64_t kUnknown = std::numeric_limits<std::uint64_t>::max();

std::uint64_t from_meminfo() {
    std::ifstream in("/proc/meminfo");
    for (std::string key; in >> key;) {
        std::uint64_t kibibytes = 0;
        if (key == "MemAvailable:" && in >> kibibytes) return kibibytes * 1024;
        in.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
    }
    return kUnknown;
}

std::optional<std::uint64_t> number_in(const char* path) {
    std::ifstream in(path);
    std::uint64_t value = 0;
    if (in >> value) return value;
    return std::nullopt;  // the file does not exist or holds the word "max"
}

/// A container sees its own control group at the root.
std::uint64_t from_control_group() {
    const auto limit = number_in("/sys/fs/cgroup/memory.max");
    const auto used = number_in("/sys/fs/cgroup/memory.current");
    if (!limit || !used) return kUnknown;
    return *limit - std::min(*limit, *used);
}

}  // namespace

std::uint64_t available_memory() { return std::min(from_meminfo(), from_control_group()); }

std::uint64_t memory_budget(std::uint64_t asked) { return asked > 0 ? asked : available_memory() / 2; }

std::string memory_text(std::uint64_t bytes) {
    char text[32];
    const auto count = static_cast<double>(bytes);
    if (bytes >= 1'000'000'000) {
        (void)std::snprintf(text, sizeof text, "%.1f GB", count / 1e9);
    } else if (bytes >= 1'000'000 || bytes == 0) {
        (void)std::snprintf(text, sizeof text, "%.0f MB", count / 1e6);
    } else {
        (void)std::snprintf(text, sizeof text, "%.0f KB", std::ceil(count / 1e3));
    }
    return text;
}

}  // namespace mha2mla
