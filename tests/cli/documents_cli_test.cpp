// Help, man pages, completions and the pages in docs/commands, all generated from one description.
#include <algorithm>
#include <regex>

#include "support/program.hpp"
#include "support/shared.hpp"
#include "support/temporary.hpp"

namespace mha2mla::test {
namespace {

namespace fs = std::filesystem;

/// The output of a shell command, followed by its exit code.
std::string shell(const std::string& command) {
    const TemporaryDirectory directory;
    const fs::path out = directory / "out";
    const int status = std::system(("{ " + command + "; } >" + out.string() + " 2>&1 </dev/null").c_str());
    return read_text(out) + "[" + std::to_string(status) + "]";
}

bool has_tool(const std::string& name) { return shell("command -v " + name).ends_with("[0]"); }

std::vector<std::string> commands() {
    std::vector<std::string> names;
    for (const auto& file : fs::directory_iterator(fs::path(MHA2MLA_DOCS_DIR) / "commands")) {
        if (file.path().extension() == ".md") names.push_back(file.path().stem().string());
    }
    return names;
}

TEST(DocumentsCli, PagesAgreeWithTheProgram) {
    const TemporaryDirectory directory;
    fs::copy(fs::path(MHA2MLA_DOCS_DIR) / "commands", directory / "commands");
    ASSERT_EQ(run_program({"generate-docs", "--pages", (directory / "commands").string()}).exit_code, 0);
    const std::string difference = shell("diff -r " + (fs::path(MHA2MLA_DOCS_DIR) / "commands").string() + " " +
                                         (directory / "commands").string());
    EXPECT_EQ(difference, "[0]") << "run tools/update_docs.sh";
}

TEST(DocumentsCli, EveryPageIsOfACommandWhoseHelpHasAnExample) {
    ASSERT_GE(commands().size(), 8U);
    const auto help = run_program({"--help"});
    EXPECT_EQ(help.exit_code, 0);
    EXPECT_EQ(help.out.find("generate-docs"), std::string::npos);
    for (const auto& name : commands()) {
        EXPECT_NE(help.out.find("  " + name + " "), std::string::npos) << name;
        const auto own = run_program({name, "--help"});
        EXPECT_EQ(own.exit_code, 0);
        const auto examples = own.out.find("Examples:");
        ASSERT_NE(examples, std::string::npos) << own.out;
        std::string words = name;
        std::ranges::replace(words, '-', ' ');
        EXPECT_NE(own.out.find("mha2mla " + words, examples), std::string::npos) << own.out;
        EXPECT_NE(own.out.find("Messages:"), std::string::npos) << own.out;
    }
}

TEST(DocumentsCli, MethodsAreThoseThatConvertTakes) {
    const auto json = nlohmann::json::parse(run_program({"methods", "--json"}).out);
    const std::string help = run_program({"convert", "--help"}).out;
    for (const char* list : {"rope", "svd"}) {
        EXPECT_GE(json.at(list).size(), 4U);
        for (const auto& row : json.at(list)) {
            EXPECT_NE(help.find(row.at("name").get<std::string>() + ": "), std::string::npos) << row;
        }
    }
}

TEST(DocumentsCli, VersionNamesCommitBlasKernelsAndCpu) {
    const std::string version = run_program({"--version"}).out;
    EXPECT_EQ(version.substr(0, 8), "mha2mla ");
    EXPECT_NE(version.find("OpenBLAS"), std::string::npos) << version;
    EXPECT_NE(version.find("CPU:"), std::string::npos) << version;
    EXPECT_TRUE(std::regex_search(version, std::regex("\nkernels: (AVX|NEON|SVE|SSE|SSSE|SCALAR|EMU)"))) << version;
    if (fs::exists(fs::path(MHA2MLA_SOURCE_DIR) / ".git")) {
        EXPECT_TRUE(std::regex_search(version, std::regex(R"(^mha2mla [0-9.]+ \(commit [0-9a-f]{12}\+?\)\n)")))
            << version;
    }
}

TEST(DocumentsCli, ManPagesRenderWithoutWarnings) {
    const TemporaryDirectory directory;
    ASSERT_EQ(run_program({"generate-docs", "--output", directory.path().string()}).exit_code, 0);
    for (const auto& name : commands())
        EXPECT_TRUE(fs::exists(directory / "man1" / ("mha2mla-" + name + ".1"))) << name;
    const std::string pages = directory.path().string() + "/man1/*.1";
    if (has_tool("groff")) {
        // A long list of choices cannot be broken into lines; no other warning is allowed.
        EXPECT_EQ(
            shell("groff -man -ww -Tascii -z " + pages + " 2>&1 | grep -v 'cannot adjust line\\|t break line' || true"),
            "[0]");
    }
    if (has_tool("mandoc")) {  // pages carry no date, so that a build makes the same bytes on every day
        EXPECT_EQ(shell("mandoc -Tlint -W warning " + pages + " | grep -v 'missing date' || true"), "[0]");
    }
    if (!has_tool("groff") && !has_tool("mandoc")) GTEST_SKIP() << "neither groff nor mandoc is installed";
}

/// The completions that bash offers for the last of `words`.
std::string complete_in_bash(const std::string& words, std::size_t index) {
    return shell("bash -c 'source <(\"" MHA2MLA_PROGRAM "\" completion bash); COMP_WORDS=(" + words +
                 "); COMP_CWORD=" + std::to_string(index) + "; _mha2mla; echo \"${COMPREPLY[*]}\"'");
}

TEST(DocumentsCli, BashCompletes) {
    EXPECT_EQ(complete_in_bash("mha2mla conv", 1), "convert\n[0]");
    EXPECT_EQ(complete_in_bash("mha2mla convert --rope-d", 2), "--rope-dim\n[0]");
    EXPECT_EQ(complete_in_bash("mha2mla convert a b --svd jo", 5), "joint\n[0]");
    EXPECT_EQ(complete_in_bash("mha2mla convert a b --svd = jo", 6), "joint\n[0]");
    EXPECT_EQ(complete_in_bash("mha2mla help conv", 2), "convert\n[0]");
    EXPECT_EQ(complete_in_bash("mha2mla --log-file convert eval --max-w", 4), "--max-windows\n[0]");
    EXPECT_EQ(complete_in_bash("mha2mla completion fi", 2), "fish\n[0]");
    const TemporaryDirectory directory;
    fs::create_directory(directory / "a model");
    write_text(directory / "a file", "");
    const std::string at = directory.path().string();
    EXPECT_EQ(complete_in_bash("mha2mla inspect " + at + "/", 2), at + "/a model\n[0]");
    EXPECT_EQ(complete_in_bash("mha2mla eval m --text " + at + "/a\\ f", 4), at + "/a file\n[0]");
}

TEST(DocumentsCli, ZshCompletes) {
    if (!has_tool("zsh")) GTEST_SKIP() << "zsh is not installed";
    const TemporaryDirectory directory;
    const std::string at = directory.path().string();
    ASSERT_EQ(shell("\"" MHA2MLA_PROGRAM "\" completion zsh >" + at + "/_mha2mla"), "[0]");
    fs::create_directory(directory / "model");
    write_text(directory / "mixed.txt", "");
    // An interactive shell, in which TAB is pressed after each of these lines.
    const std::vector<std::pair<std::string, std::string>> lines = {
        {"mha2mla conv", "mha2mla convert "},
        {"mha2mla help conv", "mha2mla help convert "},
        {"mha2mla convert --rope-d", "mha2mla convert --rope-dim="},
        {"mha2mla convert a b --svd jo", "mha2mla convert a b --svd joint "},
        {"mha2mla convert a b --svd=jo", "mha2mla convert a b --svd=joint "},
        {"mha2mla --log-file x eval --max-w", "mha2mla --log-file x eval --max-windows="},
        {"mha2mla inspect " + at + "/m", "mha2mla inspect " + at + "/model/"},
        {"mha2mla eval m --text " + at + "/mi", "mha2mla eval m --text " + at + "/mixed.txt "},
        {"mha2mla completion fi", "mha2mla completion fish "},
    };
    std::string command = "timeout 60 zsh -f " MHA2MLA_CLI_TESTS_DIR "/complete_in_zsh.zsh " + at, expected;
    for (const auto& [typed, completed] : lines) {
        command += " '" + typed + "'";
        expected += completed + "\n";
    }
    EXPECT_EQ(shell(command), expected + "[0]");
}

TEST(DocumentsCli, FishCompletes) {
    if (!has_tool("fish")) GTEST_SKIP() << "fish is not installed";
    const TemporaryDirectory directory;
    const std::string file = (directory / "mha2mla.fish").string();
    ASSERT_EQ(shell("\"" MHA2MLA_PROGRAM "\" completion fish >" + file), "[0]");
    const auto complete = [&](const std::string& line) {
        return shell("HOME=" + directory.path().string() + " fish -N -c 'source " + file + "; complete -C \"" + line +
                     "\"'");
    };
    EXPECT_EQ(complete("mha2mla conv").substr(0, 8), "convert\t");
    EXPECT_EQ(complete("mha2mla convert --rope-d").substr(0, 11), "--rope-dim\t");
    EXPECT_EQ(complete("mha2mla convert --svd jo").substr(0, 5), "joint");
    EXPECT_EQ(complete("mha2mla convert --svd=jo").substr(0, 11), "--svd=joint");
    EXPECT_EQ(complete("mha2mla help conv").substr(0, 7), "convert");
    fs::create_directory(directory / "model");
    write_text(directory / "mixed.txt", "");
    const std::string at = directory.path().string() + "/m";
    EXPECT_EQ(complete("mha2mla inspect " + at).find("mixed.txt"), std::string::npos);
    EXPECT_NE(complete("mha2mla inspect " + at).find("model/"), std::string::npos);
    EXPECT_NE(complete("mha2mla eval m --text " + at).find("mixed.txt"), std::string::npos);
}

}  // namespace
}  // namespace mha2mla::test
