#include <nlohmann/json.hpp>

#include "formats.hpp"

namespace mha2mla {
namespace {

using Json = nlohmann::ordered_json;

Json statistics_json(const NamedStats& source) {
    const CalibrationStats& stats = source.stats;
    return {{"file", source.name},          {"model", stats.model},       {"data", stats.data},
            {"sequences", stats.sequences}, {"seq_len", stats.seq_len},   {"layers", stats.layers},
            {"heads", stats.heads},         {"kv_heads", stats.kv_heads}, {"pairs", stats.pairs}};
}

Json frequencies_json(const RotaryFrequencies& frequencies) {
    Json json;
    json["source"] = frequencies.source;
    if (frequencies.theta.empty()) {
        json["theta"] = nullptr;
        json["wavelength"] = nullptr;
        return json;
    }
    json["theta"] = frequencies.theta;
    for (const double theta : frequencies.theta) json["wavelength"].push_back(wavelength(theta));
    return json;
}

Json head_json(const Report& report, std::int64_t layer, std::int64_t head) {
    Json json;
    const auto scores = report.head_scores(layer, head);
    json["scores"] = std::vector<double>(scores.begin(), scores.end());
    auto& ranks = json["ranks"] = Json::array();
    for (std::int64_t k = 0; k < report.shape.num_pairs(); ++k) ranks.push_back(report.ranks.rank(layer, head, k));
    for (const auto& selection : report.kept) {
        json["kept"][selection.strategy] =
            selection.pairs[static_cast<std::size_t>(layer)][static_cast<std::size_t>(head)];
    }
    return json;
}

Json spectrum_json(const Spectrum& spectrum) {
    return {{"shape", {spectrum.rows, spectrum.columns}}, {"singular_values", spectrum.values}};
}

Json layer_json(const Report& report, std::int64_t layer) {
    const auto at = static_cast<std::size_t>(layer);
    const auto r = static_cast<std::size_t>(report.rope_dim / 2 - 1);
    const LayerSummary& summary = report.layers[at];
    Json json;
    json["top_share"] = summary.top_share[r];
    json["gini"] = summary.gini;
    json["effective_pairs"] = summary.effective_pairs;
    std::size_t entry = 0;
    for (const auto& a : report.kept) {
        for (const auto& b : report.kept) json["jaccard"][a.strategy][b.strategy] = summary.agreement[r][entry++];
    }
    for (std::int64_t head = 0; head < report.shape.num_key_value_heads; ++head) {
        json["kv_heads"].push_back(head_json(report, layer, head));
    }
    if (report.spectra.empty()) return json;
    const LayerSpectra& spectra = report.spectra[at];
    json["spectra"] = {{"joint", spectrum_json(spectra.joint)},
                       {"key_nope", spectrum_json(spectra.key_nope)},
                       {"value", spectrum_json(spectra.value)}};
    for (const auto& row : report.retained[at]) {
        json["retained_energy"].push_back(
            {{"kv_rank", row.kv_rank}, {"latent_width", row.latent_width}, {"joint", row.joint}, {"split", row.split}});
    }
    return json;
}

Json comparison_json(const Report& report) {
    const Comparison& comparison = *report.comparison;
    Json json;
    json["statistics"] = statistics_json(comparison.other);
    for (const auto& layer : comparison.layers) {
        json["layers"].push_back({{"spearman", layer.spearman},
                                  {"jaccard", layer.jaccard[static_cast<std::size_t>(report.rope_dim / 2 - 1)]}});
    }
    json["changes"] = Json::array();
    for (const auto& change : comparison.changes) {
        json["changes"].push_back({{"layer", change.layer},
                                   {"kv_head", change.kv_head},
                                   {"leaving", change.leaving},
                                   {"entering", change.entering}});
    }
    return json;
}

}  // namespace

std::string report_json(const Report& report) {
    Json json;
    json["format"] = "mha2mla report 1";
    json["statistics"] = statistics_json(report.source);
    json["rope_dim"] = report.rope_dim;
    json["frequencies"] = frequencies_json(report.frequencies);
    for (std::int64_t layer = 0; layer < report.shape.num_hidden_layers; ++layer) {
        json["layers"].push_back(layer_json(report, layer));
    }
    if (report.comparison) json["comparison"] = comparison_json(report);
    // File names may be invalid UTF-8, which JSON does not allow.
    return json.dump(-1, ' ', false, Json::error_handler_t::replace) + '\n';
}

}  // namespace mha2mla
