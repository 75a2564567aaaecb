#pragma once
#include <string>

namespace mha2mla {

// The contents of the files page.html, page.css, figures.js and page.js, embedded by cmake/embed_text.cmake.
[[nodiscard]] std::string page_file_page_html();
[[nodiscard]] std::string page_file_page_css();
[[nodiscard]] std::string page_file_figures_js();
[[nodiscard]] std::string page_file_page_js();

}  // namespace mha2mla
