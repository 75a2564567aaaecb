#pragma once
#include <string>

#include "mha2mla/report.hpp"

namespace mha2mla {

// One file each.
[[nodiscard]] std::string report_html(const Report& report);
[[nodiscard]] std::string report_csv(const Report& report);
[[nodiscard]] std::string report_json(const Report& report);

/// What the script of the HTML page reads: numbers of four digits, each once, and nothing that could end a <script>.
[[nodiscard]] std::string page_data(const Report& report);

}  // namespace mha2mla
