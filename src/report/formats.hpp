#pragma once
#include <string>

#include "mha2mla/report.hpp"

namespace mha2mla {

// Each is defined in a file of its own: html.cpp, csv.cpp, json.cpp.
[[nodiscard]] std::string report_html(const Report& report);
[[nodiscard]] std::string report_csv(const Report& report);
[[nodiscard]] std::string report_json(const Report& report);

/// The JSON data for the script of the HTML page: every number once, with four digits, and no text that could end a
/// <script>.
[[nodiscard]] std::string page_data(const Report& report);

/// Escapes text for use between tags and in quoted attributes.
[[nodiscard]] std::string escape_html(std::string_view text);

}  // namespace mha2mla
