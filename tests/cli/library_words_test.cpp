// The library is used by other programs too: its messages and comments do not name options of this one.
#include <gtest/gtest.h>

#include <filesystem>
#include <regex>
#include <set>

#include "support/temporary.hpp"

namespace mha2mla::test {
namespace {

namespace fs = std::filesystem;

std::set<std::string> options_of_the_program() {
    const std::regex option("--[a-z][a-z-]*");
    std::set<std::string> names;
    for (const auto& file : fs::directory_iterator(fs::path(MHA2MLA_DOCS_DIR) / "commands")) {
        const std::string text = read_text(file.path());
        for (std::sregex_iterator it(text.begin(), text.end(), option), end; it != end; ++it) names.insert(it->str());
    }
    return names;
}

TEST(LibraryWords, NoFileOfTheLibraryNamesAnOption) {
    const auto options = options_of_the_program();
    ASSERT_TRUE(options.contains("--kv-rank") && options.contains("--overwrite"));
    const fs::path root = fs::path(MHA2MLA_DOCS_DIR) / "..";
    const std::regex option("--[a-z][a-z-]*");
    std::size_t files = 0;
    for (const char* folder : {"src", "include"}) {
        for (const auto& entry : fs::recursive_directory_iterator(root / folder)) {
            const auto extension = entry.path().extension();
            if (extension != ".cpp" && extension != ".hpp") continue;
            ++files;
            const std::string text = read_text(entry.path());
            for (std::sregex_iterator it(text.begin(), text.end(), option), end; it != end; ++it) {
                EXPECT_FALSE(options.contains(it->str())) << entry.path() << ": " << it->str();
            }
        }
    }
    EXPECT_GT(files, 100U);
}

}  // namespace
}  // namespace mha2mla::test
