#pragma once
/// Atomic writing of small files.

#include <filesystem>
#include <string_view>

namespace mha2mla {

/// Writes a file under a temporary name, flushes and renames it, so that it appears complete or not at all.
/// @throws Error{io}
void write_file_atomically(const std::filesystem::path& path, std::string_view content);

}  // namespace mha2mla
