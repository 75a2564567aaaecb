#pragma once
/// What the library runs on. Nothing here changes results beyond rounding.

#include <string>
#include <string_view>
#include <vector>

namespace mha2mla {

/// The BLAS that is loaded: its version and build options, and the kernels that it chose for this CPU.
[[nodiscard]] std::string blas_description();

/// Vector extensions of this CPU that matter here, by the names that compilers use; empty where they are not known.
[[nodiscard]] std::vector<std::string_view> cpu_features();

}  // namespace mha2mla
