#pragma once
/// Small files that appear whole or not at all.

#include <filesystem>
#include <string_view>

namespace mha2mla {

/// Writes one small file atomically. @throws Error{io}
void write_file_atomically(const std::filesystem::path& path, std::string_view content);

}  // namespace mha2mla
