#include <fcntl.h>
#include <malloc.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <cstdlib>
#include <new>
#include <string_view>

#include "commands.hpp"
#include "help.hpp"
#include "mha2mla/error.hpp"
#include "mha2mla/mapped_file.hpp"
#include "mha2mla/suggestion.hpp"
#include "output.hpp"
#include "remedies.hpp"
#include "version.hpp"

namespace {

using namespace mha2mla::tool;
using mha2mla::did_you_mean;

constexpr int kFailed = 1;
constexpr int kUsage = 2;

std::vector<std::string> command_names(const CLI::App& app) {
    std::vector<std::string> names;
    for (const auto& [name, summary] : describe(app).commands) names.push_back(name);
    return names;
}

std::vector<std::string> option_names(const CLI::App& app) {
    std::vector<std::string> names;
    for (const auto& group : describe(app).groups) {
        for (const auto& option : group.options) names.insert(names.end(), option.names.begin(), option.names.end());
    }
    return names;
}

/// CLI11's message, or a better one: what is not known, and what may have been meant.
std::string explain(const CLI::App& app, const CLI::ParseError& error) {
    const bool no_command = app.get_subcommands().empty();
    const CLI::App& where = no_command ? app : *app.get_subcommands().front();
    const std::string prefix = no_command ? "" : where.get_name() + ": ";
    // An unknown option is the likelier mistake than what else may be missing because of it.
    for (const auto& word : where.remaining()) {
        if (!word.starts_with("-") || word.size() < 2) continue;
        const std::string name = word.substr(0, word.find('='));
        return prefix + "unknown option '" + name + "'" + did_you_mean(name, option_names(where));
    }
    if (where.remaining().empty()) return prefix + error.what();
    const std::string word = where.remaining().front();
    if (!no_command) return prefix + "unexpected argument '" + word + "'";
    std::string known;
    for (const auto& name : command_names(app)) known += (known.empty() ? "" : ", ") + name;
    const std::string meant = did_you_mean(word, command_names(app));
    return "unknown command '" + word + "'" + (meant.empty() ? "; choose one of " + known : meant);
}

/// A command line that is wrong has not been acted upon, but its log file shall say so.
void log_where_asked(const CLI::App& app, Context& context) {
    std::vector<const CLI::App*> apps = {&app};
    for (const auto* command : app.get_subcommands()) apps.push_back(command);
    for (const auto* each : apps) {
        const auto* option = each->get_option_no_throw("--log-file");
        if (option != nullptr && !option->empty()) context.log.file = option->results().back();
    }
    try {
        start_logging(context.log, context.line);
    } catch (const mha2mla::Error&) {
        start_logging(context.line);  // log the usage error too
    }
}

int report_parse_error(const CLI::App& app, const CLI::ParseError& error, Context& context) {
    if (error.get_exit_code() == static_cast<int>(CLI::ExitCodes::Success)) {  // --help or --version
        (void)app.exit(error);
        flush_stdout();
        return 0;
    }
    log_where_asked(app, context);
    spdlog::error("{}", explain(app, error));
    const std::string command = app.get_subcommands().empty() ? "" : " " + app.get_subcommands().front()->get_name();
    (void)std::fprintf(stderr, "Run 'mha2mla%s --help' for more information.\n", command.c_str());
    return kUsage;
}

int run(int argc, char** argv, Context& context) {
    CLI::App app("Converts Hugging Face checkpoints from MHA/GQA to Multi-head Latent Attention (MHA2MLA).", "mha2mla");
    app.formatter(std::make_shared<HelpFormatter>());
    app.set_version_flag("-V,--version", version_text);
    app.set_help_flag("-h,--help", "Print this help and exit");
    app.require_subcommand(1);
    set_footer(app,
               "Exit codes: 0 done, 1 the run failed, 2 wrong usage, 3 verify missed --max-kl, 130 interrupted.\n"
               "Results go to stdout, messages and progress to stderr.",
               {{"options and examples of one command", "mha2mla convert --help"},
                {"selections and factorisations, and what they are good for", "mha2mla methods"}});
    add_commands(app, context);
    app.parse_complete_callback([&context] { start_logging(context.log, context.line); });
    try {
        app.parse(command_line(app, {argv + 1, argv + argc}));
        flush_stdout();
        return 0;
    } catch (const CLI::ParseError& error) {
        return report_parse_error(app, error, context);
    }
}

/// Runs, and turns every failure into a message and an exit code.
int run_reporting(int argc, char** argv) {
    Context context;
    start_logging(context.line);
    try {
        return run(argc, argv, context);
    } catch (const ExitWith& exit) {
        return exit.code;
    } catch (const std::bad_alloc&) {
        spdlog::error("out of memory; use fewer --threads or a smaller --context or --seq-len");
        return kFailed;
    } catch (...) {
        const mha2mla::Error error = mha2mla::as_error(std::current_exception());
        spdlog::error("{}", message_of(error));
        return exit_code(error.code());
    }
}

/// A descriptor that is closed would be that of the next file to be opened, and messages would be written into it. As
/// it is, writing fails and is reported.
void occupy_standard_descriptors() {
    for (const int descriptor : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
        if (::fcntl(descriptor, F_GETFD) < 0) (void)::open("/dev/null", O_RDONLY);
    }
}

/// Sets a variable of the environment unless the user has. @return whether it is new.
bool set_unless_given(const char* name, const char* value) {
    return std::getenv(name) == nullptr && ::setenv(name, value, 1) == 0;
}

/// Libraries read these before main(), so the program starts itself again, once.
///
/// Threads of libgomp that wait for each other spin for milliseconds. Where other jobs have the processors, those that
/// are waited for do not run meanwhile, and everything takes several times as long (docs/benchmarks.md). OpenBLAS
/// starts no threads of its own, which would never be used; where address space is limited, a process whose OpenBLAS
/// could not start them does not end. Large matrices lie in pages of 2 MB where the system has them, which a virtual
/// machine reads twice as fast.
void set_up_libraries(char** argv) {
    bool changed = std::getenv("OMP_WAIT_POLICY") == nullptr && set_unless_given("GOMP_SPINCOUNT", "1000");
    const char* const of_blas = std::getenv("OPENBLAS_NUM_THREADS");
    if (of_blas == nullptr || std::string_view(of_blas) != "1") {
        changed = ::setenv("OPENBLAS_NUM_THREADS", "1", 1) == 0 || changed;
    }
    changed = set_unless_given("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1") || changed;
    if (changed) (void)::execv("/proc/self/exe", argv);  // returns where that fails
}

/// A step of gradient descent frees its matrices and asks for the same again; given back to the kernel in between, each
/// would be zeroed page by page. Larger ones, such as weights, still go back at once.
void keep_small_matrices() {
#ifdef __GLIBC__
    (void)::mallopt(M_MMAP_THRESHOLD, 32 << 20);
    (void)::mallopt(M_TRIM_THRESHOLD, 256 << 20);
#endif
}

}  // namespace

int main(int argc, char** argv) {
    set_up_libraries(argv);
    keep_small_matrices();
    occupy_standard_descriptors();
    install_interrupt_handler();
    mha2mla::survive_shortened_files();
    return run_reporting(argc, argv);
}
