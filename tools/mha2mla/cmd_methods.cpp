#include <memory>

#include "commands.hpp"
#include "conversion.hpp"
#include "help.hpp"
#include "mha2mla/rope.hpp"
#include "options.hpp"
#include "output.hpp"

namespace mha2mla::tool {
namespace {

constexpr std::size_t kColumns = 100;
constexpr const char* kNeedsText = " [needs statistics]";

void print_entry(std::string_view name, const std::string& text) {
    std::string body = wrap(text, 16, kColumns);
    std::printf("  %-13s %s", std::string(name).c_str(), body.substr(16).c_str());
}

void print_all() {
    std::printf("Methods (--method), used if no stage is named\n");
    for (const auto& row : kMethods) print_entry(row.name, std::string(row.what));
    std::printf("\nLayouts (--layout): the form of the output\n");
    for (const auto& row : latent_layouts()) print_entry(row.name, std::string(row.what));
    std::printf("\nSelections (--rope): which rotary pairs of a head keep RoPE\n");
    for (const auto& row : rope_strategies()) {
        print_entry(row.name, std::string(row.good_for) + (row.needs_ranks() ? kNeedsText : ""));
    }
    std::printf("\nFactorisations (--svd): what goes through a latent\n");
    for (const auto& row : kFactorizations) {
        print_entry(row.name, std::string(row.what) + (row.needs_moments() ? kNeedsText : ""));
    }
    std::printf("\nPhases (--nope-phase): what queries of the pairs without RoPE become\n");
    for (const auto& row : kNopePhases) {
        print_entry(row.name, std::string(row.what) + (row.phase == NopePhase::fitted ? kNeedsText : ""));
    }
}

void print_all_as_json() {
    nlohmann::ordered_json json;
    for (const auto& row : kMethods) json["method"].push_back({{"name", row.name}, {"text", row.what}});
    for (const auto& row : latent_layouts()) json["layout"].push_back({{"name", row.name}, {"text", row.what}});
    for (const auto& row : rope_strategies()) {
        json["rope"].push_back({{"name", row.name}, {"needs_statistics", row.needs_ranks()}, {"text", row.good_for}});
    }
    for (const auto& row : kFactorizations) {
        json["svd"].push_back({{"name", row.name}, {"needs_statistics", row.needs_moments()}, {"text", row.what}});
    }
    for (const auto& row : kNopePhases) {
        json["nope_phase"].push_back(
            {{"name", row.name}, {"needs_statistics", row.phase == NopePhase::fitted}, {"text", row.what}});
    }
    print_json(json);
}

}  // namespace

void add_methods(CLI::App& app, Context&) {
    auto json = std::make_shared<bool>(false);
    auto* command =
        app.add_subcommand("methods", "Methods, layouts, selections and factorisations, and what they are good for");
    add_json_option(*command, *json);
    set_footer(*command, "docs/method.md has the equations, docs/choosing.md measured curves.",
               {{"", "mha2mla methods"}, {"for scripts", "mha2mla methods --json"}});
    command->callback([json] { *json ? print_all_as_json() : print_all(); });
}

}  // namespace mha2mla::tool
