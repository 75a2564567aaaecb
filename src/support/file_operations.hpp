#pragma once
/// The operations that make, publish and remove the files of an output. Each returns 0 or errno.

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace mha2mla::files {

enum class Operation : std::uint8_t { open, flush, rename, remove, make_directory, list };

/// For tests: asked before each operation. If it returns an errno, the operation fails with it and does nothing.
inline std::atomic<int (*)(Operation)> fault = nullptr;

/// As open(2). @param descriptor is set, to -1 on failure.
[[nodiscard]] int open(const std::filesystem::path& path, int flags, int& descriptor);
[[nodiscard]] int flush(int descriptor);
[[nodiscard]] int rename(const std::filesystem::path& from, const std::filesystem::path& to);
/// Removes a file or an empty directory; one that is not there counts as removed.
[[nodiscard]] int remove(const std::filesystem::path& path);
/// Removes a directory and all that it holds, or a file.
[[nodiscard]] int remove_all(const std::filesystem::path& path);
/// Creates a directory; one that is there counts as created.
[[nodiscard]] int make_directory(const std::filesystem::path& path);
/// The names in a directory, sorted; none if it is not there.
[[nodiscard]] int list(const std::filesystem::path& directory, std::vector<std::string>& names);

/// Whether there is something of this name, be it a link to nothing.
[[nodiscard]] bool exists(const std::filesystem::path& path);

}  // namespace mha2mla::files
