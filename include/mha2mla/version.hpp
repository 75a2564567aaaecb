#pragma once
#include <string_view>

namespace mha2mla {

/// The version of the library and the program, for example "0.1.0".
[[nodiscard]] std::string_view version();

}  // namespace mha2mla
