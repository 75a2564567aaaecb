#include <memory>

#include "commands.hpp"
#include "family_table.hpp"
#include "help.hpp"
#include "options.hpp"
#include "output.hpp"

namespace mha2mla::tool {
namespace {

constexpr std::size_t kIndent = 16, kFamilyColumns = 100;

void print_line(const std::string& text) { std::printf("%s", wrap(text, kIndent, kFamilyColumns).c_str()); }

void print_families() {
    for (const FamilyRow& row : family_rows()) {
        const std::string name(row.model_type);
        const std::string body = wrap(std::string(row.covers), kIndent, kFamilyColumns);
        std::printf("%-*s%s", static_cast<int>(kIndent), (name + " ").c_str(),
                    name.size() < kIndent ? body.substr(kIndent).c_str() : ("\n" + body).c_str());
        print_line("needs " + joined(row.needs));
        for (const FamilyLayout& layout : row.layouts) {
            const std::string runs = layout.converts ? "; runs in " + std::string(layout.runs_in) : "";
            print_line("layout " + std::string(layout.layout) + ": " + verdict_of(layout) + runs);
        }
    }
}

void print_families_as_json() {
    auto json = nlohmann::ordered_json::array();
    for (const FamilyRow& row : family_rows()) {
        nlohmann::ordered_json entry = {{"model_type", row.model_type}, {"models", row.covers}, {"needs", row.needs}};
        for (const FamilyLayout& layout : row.layouts) {
            auto& to = entry["layouts"][std::string(layout.layout)];
            to["converts"] = layout.converts;
            if (!layout.why_not.empty()) to["why_not"] = layout.why_not;
            if (!layout.unless.empty()) to["unless"] = layout.unless;
            if (layout.converts) to["runs_in"] = layout.runs_in;
        }
        json.push_back(std::move(entry));
    }
    print_json(json);
}

}  // namespace

void add_families(CLI::App& app, Context&) {
    auto json = std::make_shared<bool>(false);
    auto* command = app.add_subcommand(
        "families", "Families of models that are supported, what each takes, and which layouts it converts to");
    add_json_option(*command, *json);
    set_footer(*command,
               "All can be evaluated and can generate text. A family stands here with the settings of its published "
               "models; doctor says what holds for a checkpoint.",
               {{"", "mha2mla families"},
                {"those that convert to layout deepseek",
                 "mha2mla families --json | jq -r '.[] | select(.layouts.deepseek.converts) | .model_type'"}});
    command->callback([json] { *json ? print_families_as_json() : print_families(); });
}

}  // namespace mha2mla::tool
