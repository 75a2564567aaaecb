#include "commands.hpp"

#include <algorithm>
#include <array>

namespace mha2mla::tool {
namespace {

constexpr std::array kCommands = {
#define MHA2MLA_COMMAND(name) add_##name,
#include "commands.inc"
#undef MHA2MLA_COMMAND
};

}  // namespace

void add_commands(CLI::App& app, Context& context) {
    add_log_options(app, context.log);
    for (const auto add : kCommands) add(app, context);
    for (auto* command : app.get_subcommands([](const CLI::App*) { return true; })) {
        add_log_options(*command, context.log);
        command->get_help_ptr()->group(kMessages);  // listed with the options that every command has
    }
}

std::vector<std::string> command_line(const CLI::App& app, std::vector<std::string> words) {
    std::vector<std::string> with_value;  // options of the program
    for (const auto& group : describe(app).groups) {
        for (const auto& option : group.options) {
            if (!option.is_flag()) with_value.insert(with_value.end(), option.names.begin(), option.names.end());
        }
    }
    std::size_t at = 0;
    while (at < words.size() && words[at].starts_with("-")) {
        at += std::ranges::find(with_value, words[at]) == with_value.end() ? 1 : 2;
    }
    if (at < words.size() && words[at] == "help") ++at;
    if (at + 1 < words.size()) {
        const std::string joined = words[at] + "-" + words[at + 1];
        if (!app.get_subcommands([&](const CLI::App* command) { return command->get_name() == joined; }).empty()) {
            words[at] = joined;
            words.erase(words.begin() + static_cast<std::ptrdiff_t>(at) + 1);
        }
    }
    std::ranges::reverse(words);
    return words;
}

}  // namespace mha2mla::tool
