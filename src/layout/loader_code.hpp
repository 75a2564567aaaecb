#pragma once
#include <string>

namespace mha2mla {

// The contents of the files of src/layout/transformers, embedded by cmake/embed_text.cmake.
[[nodiscard]] std::string loader_code_configuration_mha2mla_py();
[[nodiscard]] std::string loader_code_modeling_mha2mla_py();

}  // namespace mha2mla
