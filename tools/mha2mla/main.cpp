#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <cstdio>
#include <new>

#include "commands.hpp"
#include "mha2mla/error.hpp"
#include "output.hpp"

namespace {

using namespace mha2mla::tool;

constexpr int kFailed = 1;
constexpr int kUsage = 2;

/// CLI11 would only say that a subcommand is required.
void refuse_unknown_command(const CLI::App& app, int argc, char** argv) {
    if (argc < 2 || argv[1][0] == '-') return;
    std::string known;
    for (const auto* command : app.get_subcommands({})) {
        if (command->get_name() == argv[1]) return;
        known += (known.empty() ? "" : ", ") + command->get_name();
    }
    throw mha2mla::Error(mha2mla::ErrorCode::usage,
                         "unknown command '" + std::string(argv[1]) + "'; choose one of " + known);
}

int run(int argc, char** argv) {
    Context context;
    CLI::App app("Converts Hugging Face checkpoints from MHA/GQA to Multi-head Latent Attention (MHA2MLA).", "mha2mla");
    app.set_version_flag("--version", std::string("mha2mla ") + MHA2MLA_VERSION);
    app.set_help_flag("-h,--help", "Print this help and exit");
    app.require_subcommand(1);
    app.get_formatter()->column_width(34);
    app.footer(
        "Exit codes: 0 done, 1 the run failed, 2 wrong usage, 3 verify missed --max-kl, 130 interrupted.\n"
        "'mha2mla COMMAND --help' shows a command's options and an example.");
    add_commands(app, context);
    try {
        refuse_unknown_command(app, argc, argv);
        app.parse(argc, argv);
        flush_stdout();
        return 0;
    } catch (const CLI::ParseError& error) {
        if (error.get_exit_code() == static_cast<int>(CLI::ExitCodes::Success)) return app.exit(error);
        std::fprintf(stderr, "error: %s\nRun with --help for more information.\n", error.what());
        return kUsage;
    } catch (const ExitWith& exit) {
        return exit.code;
    } catch (const mha2mla::Error& error) {
        std::fprintf(stderr, "error: %s\n", error.what());
        return exit_code(error.code());
    } catch (const std::bad_alloc&) {
        std::fprintf(stderr, "error: out of memory; use fewer --threads or a smaller --context or --seq-len\n");
        return kFailed;
    } catch (const std::exception& error) {
        std::fprintf(stderr, "error: %s\n", error.what());
        return kFailed;
    }
}

}  // namespace

int main(int argc, char** argv) {
    install_interrupt_handler();
    spdlog::set_default_logger(spdlog::stderr_color_st("mha2mla"));
    spdlog::set_pattern("%^%l%$: %v");
    return run(argc, argv);
}
