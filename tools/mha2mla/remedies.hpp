#pragma once
/// The program's words for what the library calls a Remedy: they name its options.

#include <string>
#include <string_view>

#include "mha2mla/error.hpp"

namespace mha2mla::tool {

/// advice() in terms of options; empty for Remedy::none.
[[nodiscard]] std::string option_advice(Remedy remedy);

/// The line that a user of the program reads.
[[nodiscard]] std::string message_of(const Error& error);

}  // namespace mha2mla::tool
