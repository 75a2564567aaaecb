#pragma once
#include <filesystem>
#include <string>

namespace mha2mla::tool {

/// A path under which a text can be read as often as needed: a file as it is; for "-" (standard input), pipes and
/// devices a copy of all that comes from them, in a file without a name that goes with the process.
/// @throws Error{io}
[[nodiscard]] std::string readable_text(const std::string& path);

}  // namespace mha2mla::tool
