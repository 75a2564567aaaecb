#include "family_table.hpp"

#include <nlohmann/json.hpp>

#include "mha2mla/layout.hpp"
#include "mha2mla/model.hpp"

namespace mha2mla::tool {
namespace {

/// The same family without what only some of its models have.
ModelFamily without_options(ModelFamily family) {
    family.typical = "{}";
    return family;
}

FamilyLayout mha2mla_layout(const ModelFamily& family) {
    const LatentLayout& layout = reference_layout();
    FamilyLayout result{layout.name, true, {}, conversion_obstacle(example_config(family)), "this program"};
    if (!result.why_not.empty()) result.converts = false;
    // Classes for transformers may have no window, which decides nothing else.
    if (layout.has_classes(example_config_json(family))) {
        result.runs_in = "transformers, by the code in the output";
    } else if (layout.has_classes(example_config_json(without_options(family)))) {
        result.runs_in = "transformers without a sliding window, by the code in the output";
    }
    return result;
}

FamilyLayout engines_layout(const ModelFamily& family) {
    FamilyLayout result{deepseek_layout().name,
                        true,
                        {},
                        conversion_obstacle(example_config(family)),
                        "transformers, llama.cpp; see docs/engines.md"};
    if (result.why_not.empty()) result.why_not = deepseek_obstacle(example_config(family));
    if (result.why_not.empty()) return result;
    if (family.converts && deepseek_obstacle(example_config(without_options(family))).empty()) {
        result.unless.swap(result.why_not);
    } else {
        result.converts = false;
    }
    return result;
}

}  // namespace

std::vector<FamilyRow> family_rows() {
    std::vector<FamilyRow> rows;
    for (const ModelFamily& family : model_families()) {
        rows.push_back({family.model_type,
                        family.covers,
                        operations_of(example_config(family)),
                        {mha2mla_layout(family), engines_layout(family)}});
    }
    return rows;
}

std::string verdict_of(const FamilyLayout& layout) {
    if (!layout.converts) return "no: " + layout.why_not;
    return layout.unless.empty() ? "yes" : "unless it has " + layout.unless;
}

std::string joined(const std::vector<std::string>& texts) {
    std::string all;
    for (const auto& text : texts) all += (all.empty() ? "" : ", ") + text;
    return all;
}

std::string family_markdown() {
    std::string text =
        "\n| model_type | models | what it takes | layout mha2mla | runs in | layout deepseek "
        "|\n|---|---|---|---|---|---|\n";
    for (const FamilyRow& row : family_rows()) {
        const FamilyLayout &own = row.layouts.at(0), &engines = row.layouts.at(1);
        text += "| `" + std::string(row.model_type) + "` | " + std::string(row.covers) + " | " + joined(row.needs) +
                " | " + verdict_of(own) + " | " + (own.converts ? std::string(own.runs_in) : "") + " | " +
                verdict_of(engines) + " |\n";
    }
    return text;
}

}  // namespace mha2mla::tool
