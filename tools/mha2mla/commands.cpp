#include "commands.hpp"

#include <array>

namespace mha2mla::tool {
namespace {

constexpr std::array kCommands = {
    add_plan, add_inspect, add_doctor,   add_calibrate, add_report,     add_convert, add_batch,
    add_eval, add_verify,  add_generate, add_methods,   add_completion, add_help,    add_generate_docs,
};

}  // namespace

void add_commands(CLI::App& app, Context& context) {
    add_log_options(app, context.log);
    for (const auto add : kCommands) add(app, context);
    for (auto* command : app.get_subcommands([](const CLI::App*) { return true; })) {
        add_log_options(*command, context.log);
        command->get_help_ptr()->group(kMessages);  // with what every command has, below what is its own
    }
}

}  // namespace mha2mla::tool
