#include <memory>

#include "commands.hpp"
#include "method.hpp"
#include "options.hpp"
#include "output.hpp"

namespace mha2mla::tool {
namespace {

struct PlanFlags {
    std::filesystem::path source;
    /// As of convert; of its options only --method, --kv-reduction, --layout, --rope-dim, --kv-rank and --svd are here.
    ConvertFlags conversion;
    int kv_bits = 16;
    bool json = false;
};

/// The plan of convert, of which only the widths are asked here: the paper's without any budget or layout.
ConversionPlan plan_of_widths(const ConvertFlags& flags, const ModelConfig& config) {
    ConvertFlags asked = flags;
    if (!asked.request.kv_reduction && !asked.request.method && !asked.request.layout) {
        asked.request.method = Method::mha2mla;
    }
    return plan_of(asked, config);
}

struct PlanOfSplit {
    const LatentLayout* layout;
    Split split;
    Plan plan;
};

/// What convert would choose from, each width once.
std::vector<PlanOfSplit> plans_of(const ConversionPlan& asked, const ModelConfig& config, int kv_bits) {
    std::vector<PlanOfSplit> plans;
    for (const Split& split : asked.splits(config)) {
        if (!plans.empty() && plans.back().split.rope_dim == split.rope_dim) continue;
        plans.push_back({&asked.layout(), split,
                         plan_conversion(config, {split.rope_dim, split.kv_rank, asked.factorization(), kv_bits,
                                                  &asked.layout()})});
    }
    return plans;
}

std::vector<std::string> cells(const PlanOfSplit& row, int kv_bits) {
    const Plan& plan = row.plan;
    return {std::string(row.layout->name),
            std::to_string(row.split.rope_dim),
            std::to_string(row.split.kv_rank),
            std::to_string(plan.latent_width),
            human_count(plan.parameters_original) + " -> " + human_count(plan.parameters_converted),
            human_bytes(plan.original_bytes_per_token) + " -> " + human_bytes(plan.converted_bytes_per_token) +
                " bytes (16 -> " + std::to_string(kv_bits) + " bit), " + human_reduction(plan.reduction())};
}

/// Layers whose cache does not grow beyond a number of tokens.
struct Windows {
    std::int64_t layers = 0, tokens = 0;  // the widest window
};
Windows windows_of(const ModelConfig& config) {
    Windows windows;
    for (const LayerRules& rules : config.rules.layers) {
        if (rules.attention.window == 0) continue;
        ++windows.layers;
        windows.tokens = std::max(windows.tokens, rules.attention.window);
    }
    return windows;
}

void print_single(const PlanOfSplit& row, const ModelConfig& config, int kv_bits) {
    const auto text = cells(row, kv_bits);
    const bool shared = row.layout->shared_rope_key;
    std::vector<std::pair<std::string, std::string>> rows = {
        {"layout", text[0]},
        {"rope-dim", text[1] + (shared ? ", for all heads" : " of " + std::to_string(config.head_dim) + " per head")},
        {"kv-rank", text[2] + (shared ? ", for all heads" : " per KV head, latent width " + text[3])},
        {"parameters", text[4]},
        {"KV cache per token", text[5]},
    };
    if (const Windows windows = windows_of(config); windows.layers > 0) {
        rows.emplace_back("sliding window", std::to_string(windows.layers) + " of " +
                                                std::to_string(config.num_hidden_layers) + " layers keep the newest " +
                                                std::to_string(windows.tokens) + " tokens alone");
    }
    print_table(rows);
}

nlohmann::ordered_json as_json(const std::vector<PlanOfSplit>& plans, const ModelConfig& config,
                               Factorization factorization, int kv_bits) {
    const Windows windows = windows_of(config);
    const auto of_one = [&](const PlanOfSplit& row) {
        auto json = plan_json(row.plan, kv_bits);
        if (windows.layers > 0) json["sliding_window"] = {{"layers", windows.layers}, {"tokens", windows.tokens}};
        json["layout"] = row.layout->name;
        json["rope_dim"] = row.split.rope_dim;
        json["kv_rank"] = row.split.kv_rank;
        json["svd"] = row_of(factorization).name;
        return json;
    };
    if (plans.size() == 1) return of_one(plans.front());
    nlohmann::ordered_json json;
    json["splits"] = nlohmann::ordered_json::array();
    for (const auto& row : plans) json["splits"].push_back(of_one(row));
    return json;
}

void run(const PlanFlags& flags) {
    std::error_code ignored;
    const bool directory = std::filesystem::is_directory(flags.source, ignored);
    const ModelConfig config = read_config(directory ? flags.source / "config.json" : flags.source);
    const ConversionPlan asked = plan_of_widths(flags.conversion, config);
    std::vector<PlanOfSplit> plans = plans_of(asked, config, flags.kv_bits);
    if (asked.aligned() != nullptr && !flags.conversion.request.layout) {
        // The same budget in the other layouts.
        for (const LatentLayout& layout : latent_layouts()) {
            if (layout.shared_rope_key && !deepseek_obstacle(config).empty()) continue;
            if (&layout == &asked.layout() || flags.conversion.request.kv_rank || flags.conversion.request.rope_dim) {
                continue;
            }
            ConvertFlags other = flags.conversion;
            other.request.layout = layout.name;
            const auto more = plans_of(plan_of_widths(other, config), config, flags.kv_bits);
            plans.insert(plans.end(), more.begin(), more.end());
        }
    }
    if (flags.json) return print_json(as_json(plans, config, asked.factorization(), flags.kv_bits));
    if (plans.size() == 1) return print_single(plans.front(), config, flags.kv_bits);
    std::vector<std::vector<std::string>> rows = {
        {"layout", "rope-dim", "kv-rank", "latent width", "parameters", "KV cache per token"}};
    for (const auto& row : plans) rows.push_back(cells(row, flags.kv_bits));
    print_columns(rows);
}

}  // namespace

void add_plan(CLI::App& app, Context&) {
    auto flags = std::make_shared<PlanFlags>();
    auto* command = app.add_subcommand("plan", "What a conversion would cost and save, from config.json alone");
    command->add_option("config", flags->source, "config.json, or a directory that holds one")
        ->required()
        ->type_name("PATH");
    add_budget_options(*command, flags->conversion);
    add_latent_options(*command, flags->conversion.request);
    command->add_option("--kv-bits", flags->kv_bits, "Bits of a number in the converted cache; the original's are 16")
        ->check(CLI::Validator(
            [](std::string& text) {
                const bool known = text == "16" || text == "8" || text == "4" || text == "2";
                return known ? std::string() : "'" + text + "' is not one of 16, 8, 4, 2";
            },
            ""))
        ->type_name("{16,8,4,2}")
        ->capture_default_str();
    add_json_option(*command, flags->json);
    set_footer(
        *command, "",
        {{"the paper's defaults", "mha2mla plan ./SmolLM-135M"},
         {"what convert would choose from for half the KV cache", "mha2mla plan ./SmolLM-135M --kv-reduction 0.5"},
         {"a smaller latent, cached at 4 bits",
          "mha2mla plan ./SmolLM-135M/config.json --rope-dim 8 --kv-rank 16 --kv-bits 4"}});
    command->callback([flags] { run(*flags); });
}

}  // namespace mha2mla::tool
