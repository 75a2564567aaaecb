#pragma once
#include <string>

namespace mha2mla {

// The files of the same names beside this one, embedded by cmake/embed_text.cmake.
[[nodiscard]] std::string page_file_page_html();
[[nodiscard]] std::string page_file_page_css();
[[nodiscard]] std::string page_file_figures_js();
[[nodiscard]] std::string page_file_page_js();

}  // namespace mha2mla
