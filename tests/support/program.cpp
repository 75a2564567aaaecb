#include "support/program.hpp"

#include <sys/wait.h>

#include <csignal>
#include <cstdlib>

#include "support/temporary.hpp"

namespace mha2mla::test {
namespace {

/// A shell that starts the tests in the background lets them ignore this, and so would the programs under test.
[[maybe_unused]] const auto kInterruptBefore = std::signal(SIGINT, SIG_DFL);

std::string quote(const std::string& text) {
    std::string quoted = "'";
    for (const char c : text) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
    return quoted + "'";
}

}  // namespace

ProgramResult run_program(const std::vector<std::string>& arguments, const std::string& prefix) {
    const TemporaryDirectory directory;
    const auto out = directory.path() / "out";
    const auto err = directory.path() / "err";
    std::string command = prefix + " " + quote(MHA2MLA_PROGRAM);
    for (const auto& argument : arguments) command += " " + quote(argument);
    // The redirection of the shell comes first, so that a prefix such as ulimit does not affect these files.
    const int status = std::system(("{ " + command + "; } >" + quote(out) + " 2>" + quote(err)).c_str());
    ProgramResult result;
    result.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    result.out = read_text(out);
    result.err = read_text(err);
    return result;
}

}  // namespace mha2mla::test
