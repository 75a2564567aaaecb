#include <algorithm>
#include <charconv>

#include "formats.hpp"

namespace mha2mla {
namespace {

/// Appends the shortest text that parses to the same number.
void append(std::string& out, double value) {
    char text[32];
    out.append(text, std::to_chars(text, text + sizeof text, value).ptr);
}

}  // namespace

std::string report_csv(const Report& report) {
    std::string out = "layer,kv_head,pair,theta,wavelength,score,rank";
    for (const auto& selection : report.kept) out += ",kept_by_" + selection.strategy;
    out += '\n';
    for (std::int64_t layer = 0; layer < report.shape.num_hidden_layers; ++layer) {
        for (std::int64_t head = 0; head < report.shape.num_key_value_heads; ++head) {
            const auto scores = report.head_scores(layer, head);
            for (std::int64_t k = 0; k < report.shape.num_pairs(); ++k) {
                const auto at = static_cast<std::size_t>(k);
                out += std::to_string(layer) + ',' + std::to_string(head) + ',' + std::to_string(k) + ',';
                if (!report.frequencies.theta.empty()) append(out, report.frequencies.theta[at]);
                out += ',';
                if (!report.frequencies.theta.empty()) append(out, wavelength(report.frequencies.theta[at]));
                out += ',';
                append(out, scores[at]);
                out += ',' + std::to_string(report.ranks.rank(layer, head, k));
                for (const auto& selection : report.kept) {
                    const auto& kept = selection.pairs[static_cast<std::size_t>(layer)][static_cast<std::size_t>(head)];
                    out += std::binary_search(kept.begin(), kept.end(), k) ? ",1" : ",0";
                }
                out += '\n';
            }
        }
    }
    return out;
}

}  // namespace mha2mla
