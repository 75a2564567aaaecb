#pragma once
#include <string>

namespace mha2mla::tool {

/// What --version prints: the version, and what figures of speed depend on.
[[nodiscard]] std::string version_text();

}  // namespace mha2mla::tool
