#include "formats.hpp"

#include <array>

namespace mha2mla {
namespace {

constexpr std::array<ReportFormat, 3> kFormats = {{
    {"html", "one page with figures that needs no network", report_html},
    {"csv", "a row for each layer, KV head and rotary pair", report_csv},
    {"json", "everything in the report, for scripts", report_json},
}};

}  // namespace

std::span<const ReportFormat> report_formats() { return kFormats; }

}  // namespace mha2mla
