#pragma once
/// The mapped files of the process, for the handler of SIGBUS.

#include <cstddef>
#include <optional>
#include <span>
#include <string>

namespace mha2mla {

struct Mapping;

[[nodiscard]] Mapping* enter_mapping(std::span<const std::byte> bytes, int descriptor, std::string name);
/// To be called before the memory is unmapped.
void leave_mapping(Mapping& mapping) noexcept;

/// Notes that zeros behind the file's end may have been read, which a page that is given back no longer tells.
void note_lost_page(Mapping& mapping);

/// What check_mapped_files() would throw, if anything. Each is told once for a file that was closed since then.
[[nodiscard]] std::optional<std::string> take_shortened_file();

/// Reads each page of `bytes`, so that a system call can read them too. @return false if that could end the process.
[[nodiscard]] bool touch_pages(std::span<const std::byte> bytes);

}  // namespace mha2mla
