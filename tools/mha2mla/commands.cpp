#include "commands.hpp"

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

}  // namespace mha2mla::tool
