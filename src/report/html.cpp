#include <algorithm>
#include <array>
#include <cstdio>
#include <filesystem>

#include "formats.hpp"
#include "page_files.hpp"

namespace mha2mla {
namespace {

std::string fixed(double value, int digits) {
    char text[64];
    (void)std::snprintf(text, sizeof text, "%.*f", digits, value);
    return text;
}
std::string percent(double share) { return fixed(100 * share, 1) + "%"; }

std::string cell(const std::string& text) { return "<td>" + text + "</td>"; }
std::string row_head(const std::string& text) { return "<tr><th scope=\"row\">" + text + "</th>"; }
std::string column_head(const std::string& text) { return "<th scope=\"col\">" + escape_html(text) + "</th>"; }

std::string fact(const std::string& name, const std::string& value) {
    return "<div><dt>" + name + "</dt><dd>" + escape_html(value.empty() ? "not recorded" : value) + "</dd></div>\n";
}

/// The last part of the model's path, or the statistics file's name.
std::string model_name(const NamedStats& source) {
    const auto canonical = std::filesystem::path(source.stats.model).lexically_normal();
    const auto name = canonical.has_filename() ? canonical.filename() : canonical.parent_path().filename();
    return name.empty() ? std::filesystem::path(source.name).filename().string() : name.string();
}

std::string facts(const Report& report) {
    const CalibrationStats& stats = report.source.stats;
    const auto text = [](std::int64_t value) { return std::to_string(value); };
    std::string heads = text(stats.heads) + " query heads, " + text(stats.kv_heads) + " KV heads";
    std::string out =
        fact("Statistics", report.source.name) + fact("Model", stats.model) +
        fact("Text", stats.data + ", " + text(stats.sequences) + " sequences of " + text(stats.seq_len) + " tokens") +
        fact("Shape", text(stats.layers) + " layers, " + heads + ", head_dim " + text(report.shape.head_dim) + " (" +
                          text(stats.pairs) + " rotary pairs)") +
        fact("Frequencies", report.frequencies.source);
    if (report.comparison) out += fact("Compared with", report.comparison->other.name);
    return out;
}

/// The index of 2-norm, the selection with which the others are compared.
std::size_t two_norm_row(const Report& report) {
    const auto at = std::find_if(report.kept.begin(), report.kept.end(),
                                 [](const auto& selection) { return selection.strategy == "2-norm"; });
    return static_cast<std::size_t>(at - report.kept.begin());
}

std::string layer_head(const Report& report) {
    std::string out =
        column_head("layer") + column_head("top share") + column_head("effective pairs") + column_head("Gini");
    for (std::size_t s = 0; s < report.kept.size(); ++s) {
        if (s != two_norm_row(report)) out += column_head("agrees with " + report.kept[s].strategy);
    }
    return out;
}

std::string layer_rows(const Report& report) {
    const auto r = static_cast<std::size_t>(report.rope_dim / 2 - 1);
    const std::size_t strategies = report.kept.size();
    std::string out;
    for (std::size_t layer = 0; layer < report.layers.size(); ++layer) {
        const LayerSummary& summary = report.layers[layer];
        out += row_head(std::to_string(layer)) + cell(percent(summary.top_share[r])) +
               cell(fixed(summary.effective_pairs, 1)) + cell(fixed(summary.gini, 2));
        for (std::size_t s = 0; s < strategies; ++s) {
            if (s == two_norm_row(report)) continue;
            out += cell(fixed(summary.agreement[r][two_norm_row(report) * strategies + s], 2));
        }
        out += "</tr>\n";
    }
    return out;
}

std::string strategy_head(const Report& report) {
    std::string out = "<td></td>";
    for (const auto& selection : report.kept) out += column_head(selection.strategy);
    return out;
}

std::string strategy_rows(const Report& report) {
    const auto r = static_cast<std::size_t>(report.rope_dim / 2 - 1);
    const auto& rows = report.kept;
    std::string out;
    for (std::size_t a = 0; a < rows.size(); ++a) {
        out += row_head(escape_html(rows[a].strategy));
        for (std::size_t b = 0; b < rows.size(); ++b) {
            double sum = 0;
            for (const auto& layer : report.layers) sum += layer.agreement[r][a * rows.size() + b];
            out += cell(fixed(sum / static_cast<double>(report.layers.size()), 2));
        }
        out += "</tr>\n";
    }
    return out;
}

/// The minimum, mean and maximum over the layers, as table cells.
std::string spread(const Report& report, std::size_t width, double RetainedEnergy::*member) {
    double least = 1, most = 0, sum = 0;
    for (const auto& layer : report.retained) {
        const double value = layer[width].*member;
        least = std::min(least, value);
        most = std::max(most, value);
        sum += value;
    }
    return cell(percent(least)) + cell(percent(sum / static_cast<double>(report.retained.size()))) +
           cell(percent(most));
}

std::string retained_rows(const Report& report) {
    std::string out;
    if (report.retained.empty()) return out;
    const auto head_dim = static_cast<double>(report.shape.head_dim);
    for (std::size_t width = 0; width < report.retained.front().size(); ++width) {
        const RetainedEnergy& row = report.retained.front()[width];
        const double cache = static_cast<double>(report.rope_dim + row.kv_rank) / (2 * head_dim);
        out += row_head(std::to_string(row.kv_rank)) + cell(std::to_string(row.latent_width)) + cell(percent(cache)) +
               spread(report, width, &RetainedEnergy::joint) + spread(report, width, &RetainedEnergy::split) +
               "</tr>\n";
    }
    return out;
}

std::string comparison_rows(const Report& report) {
    std::string out;
    if (!report.comparison) return out;
    const auto r = static_cast<std::size_t>(report.rope_dim / 2 - 1);
    for (std::size_t layer = 0; layer < report.comparison->layers.size(); ++layer) {
        const LayerComparison& row = report.comparison->layers[layer];
        const auto changed =
            std::count_if(report.comparison->changes.begin(), report.comparison->changes.end(),
                          [&](const KeptChange& change) { return change.layer == static_cast<std::int64_t>(layer); });
        out += row_head(std::to_string(layer)) + cell(fixed(row.spearman, 3)) + cell(fixed(row.jaccard[r], 2)) +
               cell(std::to_string(changed) + " of " + std::to_string(report.shape.num_key_value_heads)) + "</tr>\n";
    }
    return out;
}

/// The text that replaces {{name}} in page.html.
struct Part {
    std::string_view name;
    std::string (*text)(const Report&);
};

constexpr auto kParts = std::to_array<Part>({
    {"style", [](const Report&) { return page_file_page_css(); }},
    {"script", [](const Report&) { return page_file_figures_js() + page_file_page_js(); }},
    {"data", page_data},
    {"title", [](const Report& r) { return escape_html(model_name(r.source)); }},
    {"source", [](const Report& r) { return escape_html(r.source.name); }},
    {"other", [](const Report& r) { return escape_html(r.comparison ? r.comparison->other.name : ""); }},
    {"facts", facts},
    {"pairs", [](const Report& r) { return std::to_string(r.shape.num_pairs()); }},
    {"rope_dim", [](const Report& r) { return std::to_string(r.rope_dim); }},
    {"head_dim", [](const Report& r) { return std::to_string(r.shape.head_dim); }},
    {"layer_head", layer_head},
    {"layer_rows", layer_rows},
    {"strategy_head", strategy_head},
    {"strategy_rows", strategy_rows},
    {"retained_rows", retained_rows},
    {"comparison_rows", comparison_rows},
    // Sections without data are hidden.
    {"hide_spectra", [](const Report& r) { return std::string(r.spectra.empty() ? "hidden" : ""); }},
    {"hide_comparison", [](const Report& r) { return std::string(r.comparison ? "" : "hidden"); }},
    {"hide_frequencies", [](const Report& r) { return std::string(r.frequencies.theta.empty() ? "" : "hidden"); }},
});

}  // namespace

std::string escape_html(std::string_view text) {
    std::string out;
    for (const char c : text) {
        switch (c) {
            case '&':
                out += "&amp;";
                break;
            case '<':
                out += "&lt;";
                break;
            case '>':
                out += "&gt;";
                break;
            case '"':
                out += "&quot;";
                break;
            case '\'':
                out += "&#39;";
                break;
            default:
                out += c;
        }
    }
    return out;
}

std::string report_html(const Report& report) {
    const std::string page = page_file_page_html();
    std::string out;
    std::size_t at = 0;
    // A single pass, so that {{ in inserted text is not replaced again.
    for (std::size_t open = page.find("{{"); open != std::string::npos; open = page.find("{{", at)) {
        const std::size_t close = page.find("}}", open);
        const std::string_view name = std::string_view(page).substr(open + 2, close - open - 2);
        out.append(page, at, open - at);
        out += std::find_if(kParts.begin(), kParts.end(), [&](const Part& part) {
                   return part.name == name;
               })->text(report);
        at = close + 2;
    }
    return out.append(page, at);
}

}  // namespace mha2mla
