#pragma once
#include <CLI/CLI.hpp>

#include "command_doc.hpp"
#include "context.hpp"

namespace mha2mla::tool {

// Each registers one subcommand: its options, its help and what it runs.
void add_plan(CLI::App& app, Context& context);
void add_inspect(CLI::App& app, Context& context);
void add_doctor(CLI::App& app, Context& context);
void add_calibrate(CLI::App& app, Context& context);
void add_report(CLI::App& app, Context& context);
void add_convert(CLI::App& app, Context& context);
void add_batch(CLI::App& app, Context& context);
void add_eval(CLI::App& app, Context& context);
void add_verify(CLI::App& app, Context& context);
void add_generate(CLI::App& app, Context& context);
void add_methods(CLI::App& app, Context& context);
void add_completion(CLI::App& app, Context& context);
void add_help(CLI::App& app, Context& context);
void add_generate_docs(CLI::App& app, Context& context);

/// All of them, in the order of --help.
void add_commands(CLI::App& app, Context& context);

}  // namespace mha2mla::tool
