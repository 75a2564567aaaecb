// The example of docs/library.md, compiled and run; the page holds the same text.
#include <gtest/gtest.h>

// [example]
#include "mha2mla/convert.hpp"
#include "mha2mla/statistics.hpp"

namespace fs = std::filesystem;

mha2mla::ConvertReport convert_on_text(const fs::path& source, const fs::path& text, const fs::path& destination) {
    using namespace mha2mla;
    Observer observer;  // derive from it for progress, warnings and interruption
    const Model model = Model::open(source);

    // 8 rotated dimensions of each head, selected by attention, and 12 latent dimensions per KV head.
    StagedPlan stages;
    stages.rope = {"attention", 8, 0};
    stages.kv_rank = 12;
    stages.factorization = Factorization::whitened;

    // What these stages need to know of queries, keys and layer inputs on the text: 64 sequences of 256 tokens.
    const StatisticsSource on_text{.text = {.text = text}, .samples = {.samples = 64, .seq_len = 256}};
    const Statistics statistics = make_statistics(model, stages, on_text, observer);
    return convert(model, destination, {stages}, statistics.view(), observer);
}
// [example]

#include <algorithm>

#include "support/shared.hpp"
#include "support/temporary.hpp"

namespace mha2mla::test {
namespace {

TEST(LibraryExample, ConvertsWithinItsBudget) {
    const TemporaryDirectory directory;
    const std::string text = read_text(example("kjv-calibration.txt")).substr(0, 40'000);
    write_text(directory / "text.txt", text);
    const ConvertReport report = convert_on_text(example("kjv-1.8M"), directory / "text.txt", directory / "out");
    EXPECT_EQ(report.selection.strategy, "attention");
    EXPECT_DOUBLE_EQ(report.plan.reduction(), 1 - (8 + 12) / 64.0);
    EXPECT_TRUE(Model::open(directory / "out").config.latent.has_value());
}

TEST(LibraryExample, IsThatOfThePage) {
    const std::string code = read_text(MHA2MLA_SOURCE_DIR "/tests/unit/library_example_test.cpp");
    const std::string mark = "// [example]\n";
    const auto begin = code.find(mark) + mark.size();
    const std::string example = code.substr(begin, code.find(mark, begin) - begin);
    const std::string page = read_text(MHA2MLA_SOURCE_DIR "/docs/library.md");
    EXPECT_NE(page.find("```cpp\n" + example + "```\n"), std::string::npos) << "copy the example into docs/library.md";
}

}  // namespace
}  // namespace mha2mla::test
