#pragma once
#include <string>

namespace mha2mla::tool {

/// The output of --version: the version, and the BLAS, CPU and threads, on which the speed depends.
[[nodiscard]] std::string version_text();

}  // namespace mha2mla::tool
