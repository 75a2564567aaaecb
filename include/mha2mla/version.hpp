#pragma once
#include <string_view>

namespace mha2mla {

/// Of the library and the program, for example "0.1.0".
[[nodiscard]] std::string_view version();

}  // namespace mha2mla
