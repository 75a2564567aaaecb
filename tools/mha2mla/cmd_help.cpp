#include <cstdio>
#include <memory>

#include "commands.hpp"
#include "mha2mla/suggestion.hpp"

namespace mha2mla::tool {

void add_help(CLI::App& app, Context&) {
    std::vector<std::string> names;  // of the commands registered before this one, which are the visible ones
    for (const auto& [name, summary] : describe(app).commands) names.push_back(name);
    auto asked = std::make_shared<std::string>();
    auto* command = app.add_subcommand("help", "Print the help of a command, as COMMAND --help does");
    command->add_option("command", *asked, "Command to explain; without one, the program is")
        ->check([names](const std::string& word) {
            if (std::find(names.begin(), names.end(), word) != names.end()) return std::string();
            return "unknown command '" + word + "'" + did_you_mean(word, names);
        })
        ->type_name("{" + CLI::detail::join(names, ",") + "}");
    set_footer(*command, "", {{"", "mha2mla help convert"}});
    command->callback([asked, &app] {
        const CLI::App& of = asked->empty() ? app : *app.get_subcommand(*asked);
        // app.help() would print the help of the called command, which is this one.
        std::printf("%s", app.get_formatter()->make_help(&of, "", CLI::AppFormatMode::Normal).c_str());
    });
}

}  // namespace mha2mla::tool
