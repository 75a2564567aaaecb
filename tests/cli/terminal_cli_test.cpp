// Output for users: progress on terminals of any width, plain lines elsewhere, messages in the log file.
#include <poll.h>
#include <pty.h>
#include <sys/wait.h>

#include <array>
#include <sstream>

#include "support/program.hpp"
#include "support/shared.hpp"
#include "support/temporary.hpp"

namespace mha2mla::test {
namespace {

const std::string kModel = example("kjv-1.8M").string();
const std::string kText = example("kjv-eval.txt").string();
// Nothing is there, and what is refused writes nothing.
const std::string kNowhere = (std::filesystem::temp_directory_path() / "mha2mla-tests-nothing-is-here").string();
const std::vector<std::string> kEval = {"eval", kModel, "--text", kText, "--context", "256", "--max-windows", "40"};

/// Everything that the program writes to stdout and stderr on a terminal with this number of columns.
std::string run_in_terminal(const std::vector<std::string>& arguments, unsigned short columns) {
    winsize size{};
    size.ws_col = columns;
    size.ws_row = 24;
    int terminal = -1;
    const pid_t child = ::forkpty(&terminal, nullptr, nullptr, &size);
    if (child == 0) {
        ::setenv("TERM", "xterm", 1);
        std::vector<char*> words = {const_cast<char*>(MHA2MLA_PROGRAM)};
        for (const auto& argument : arguments) words.push_back(const_cast<char*>(argument.c_str()));
        words.push_back(nullptr);
        ::execv(words.front(), words.data());
        ::_exit(127);
    }
    std::string text;
    std::array<char, 4096> buffer{};
    for (ssize_t got = 0; (got = ::read(terminal, buffer.data(), buffer.size())) > 0;) {
        text.append(buffer.data(), static_cast<std::size_t>(got));
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    ::close(terminal);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << text;
    return text;
}

TEST(TerminalCli, ProgressFitsIntoTwentyColumnsAndIsErased) {
    const std::string text = run_in_terminal(kEval, 20);
    const auto result = text.find("NLL");
    ASSERT_NE(result, std::string::npos) << text;
    const std::string before = text.substr(0, result);
    EXPECT_NE(before.find('%'), std::string::npos) << before;
    EXPECT_EQ(before.find('\n'), std::string::npos) << before;  // one line that is overwritten
    EXPECT_TRUE(before.ends_with("\r\x1b[K")) << before;
    std::istringstream lines(before);
    for (std::string line; std::getline(lines, line, '\r');) {
        EXPECT_LT(line.substr(0, line.find('\x1b')).size(), 20U) << line;
    }
}

TEST(TerminalCli, AWideTerminalShowsABarRateAndTimeLeft) {
    const std::string text = run_in_terminal(kEval, 120);
    EXPECT_NE(text.find("[="), std::string::npos) << text;
    EXPECT_NE(text.find("ETA "), std::string::npos) << text;
}

TEST(TerminalCli, QuietShowsNoProgress) {
    auto arguments = kEval;
    arguments.emplace_back("-q");
    EXPECT_EQ(run_in_terminal(arguments, 80).substr(0, 3), "NLL");
}

TEST(TerminalCli, HelpWrapsAtTwentyColumns) {
    std::istringstream lines(run_in_terminal({"verify", "--help"}, 20));
    std::size_t wide = 0, all = 0;
    for (std::string line; std::getline(lines, line) && line.find("Examples:") == std::string::npos; ++all) {
        wide += line.size() > 21 && line.find(' ', line.find_first_not_of(' ')) != std::string::npos ? 1 : 0;
    }
    EXPECT_GT(all, 50U);
    EXPECT_EQ(wide, 0U);  // only single words may be wider
}

TEST(TerminalCli, WithoutATerminalThereAreOnlyPlainLines) {
    auto arguments = kEval;
    arguments.emplace_back("-v");
    const auto result = run_program(arguments);
    EXPECT_EQ(result.exit_code, 0);
    EXPECT_EQ(result.err.find('\x1b'), std::string::npos) << result.err;
    EXPECT_EQ(result.err.find('\r'), std::string::npos) << result.err;
    EXPECT_NE(result.err.find("debug: "), std::string::npos) << result.err;
}

TEST(TerminalCli, LogOptionsStandOnEitherSideOfTheCommand) {
    const TemporaryDirectory directory;
    const std::string log = (directory / "log").string();
    for (const bool first : {true, false}) {
        std::vector<std::string> arguments = {"eval", "/no/such/dir", "--text", kText};
        const std::vector<std::string> more = {"--log-file", log, "-q", "--log-format", "json"};
        arguments.insert(first ? arguments.begin() : arguments.end(), more.begin(), more.end());
        const auto result = run_program(arguments);
        EXPECT_EQ(result.exit_code, 1);
        const auto line = nlohmann::json::parse(result.err);
        EXPECT_EQ(line.at("level"), "error");
        EXPECT_NE(line.at("message").get<std::string>().find("/no/such/dir"), std::string::npos);
        EXPECT_EQ(line.at("time").get<std::string>().back(), 'Z');
    }
    std::istringstream lines(read_text(log));
    std::size_t count = 0;
    for (std::string line; std::getline(lines, line); ++count)
        EXPECT_EQ(nlohmann::json::parse(line).at("level"), "error");
    EXPECT_EQ(count, 2U);  // appended
}

TEST(TerminalCli, AWrongCommandLineReachesTheLogFileToo) {
    const TemporaryDirectory directory;
    const std::string log = (directory / "log").string();
    EXPECT_EQ(run_program({"eval", kModel, "--tekst", kText, "--log-file", log}).exit_code, 2);
    EXPECT_NE(read_text(log).find("error: eval: unknown option '--tekst'; did you mean '--text'?"), std::string::npos);
}

TEST(TerminalCli, ALogFileThatCannotBeWrittenStopsTheRun) {
    const auto result = run_program({"inspect", kModel, "--log-file", "/proc/no/log"});
    EXPECT_EQ(result.exit_code, 1);
    EXPECT_NE(result.err.find("--log-file"), std::string::npos) << result.err;
}

TEST(TerminalCli, ErrorsSuggestTheNearestWord) {
    const auto error = [](const std::vector<std::string>& arguments) { return run_program(arguments).err; };
    EXPECT_NE(error({"covnert", kModel}).find("unknown command 'covnert'; did you mean 'convert'?"), std::string::npos);
    EXPECT_NE(error({"-v", "evl"}).find("did you mean 'eval'?"), std::string::npos);
    EXPECT_NE(error({"eval", kModel, "--contxt=5"}).find("'--contxt'; did you mean '--context'?"), std::string::npos);
    EXPECT_NE(error({"convert", kModel, kNowhere, "--svd", "jiont"}).find("did you mean 'joint'?"), std::string::npos);
    EXPECT_NE(error({"convert", kModel, kNowhere, "--rope", "unifrm"}).find("did you mean 'uniform'?"),
              std::string::npos);
}

TEST(TerminalCli, AReaderThatGoesAwayIsReportedOnce) {
    const auto result = run_program({"inspect", kModel}, "exec >/dev/full;");
    EXPECT_EQ(result.exit_code, 1);
    EXPECT_EQ(result.err.find("error: "), result.err.rfind("error: ")) << result.err;
    EXPECT_NE(result.err.find("pipe"), std::string::npos) << result.err;
}

TEST(TerminalCli, ClosedDescriptorsAreNotTakenForFiles) {
    const TemporaryDirectory directory;
    const std::string open = (directory / "open").string(), closed = (directory / "closed").string();
    ASSERT_EQ(run_program({"convert", kModel, open, "--rope", "high", "-v"}).exit_code, 0);
    EXPECT_EQ(run_program({"convert", kModel, closed, "--rope", "high", "-v"}, "exec <&- >&- 2>&-;").exit_code, 1);
    EXPECT_EQ(read_text(open + "/model.safetensors"), read_text(closed + "/model.safetensors"));
    EXPECT_EQ(read_text(open + "/config.json"), read_text(closed + "/config.json"));
}

TEST(TerminalCli, HelpOfACommandByEitherWay) {
    EXPECT_EQ(run_program({"help", "verify"}).out, run_program({"verify", "--help"}).out);
    EXPECT_EQ(run_program({"help"}).out, run_program({"--help"}).out);
    const auto wrong = run_program({"help", "verfy"});
    EXPECT_EQ(wrong.exit_code, 2);
    EXPECT_NE(wrong.err.find("unknown command 'verfy'; did you mean 'verify'?"), std::string::npos) << wrong.err;
}

}  // namespace
}  // namespace mha2mla::test
