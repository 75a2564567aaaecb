#pragma once
#include <string>

namespace mha2mla::tool {

/// The output of --version: the version and commit, and the BLAS, kernels, CPU and threads, on which the speed depends.
[[nodiscard]] std::string version_text();

}  // namespace mha2mla::tool
