#include "commands.hpp"

#include <array>

namespace mha2mla::tool {
namespace {

constexpr std::array kCommands = {add_plan,    add_inspect, add_calibrate, add_report,
                                  add_convert, add_eval,    add_verify,    add_generate};

}  // namespace

void add_commands(CLI::App& app, Context& context) {
    for (const auto add : kCommands) add(app, context);
}

}  // namespace mha2mla::tool
