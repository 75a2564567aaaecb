// The example of docs/library.md, compiled and run; the page holds the same text.
#include <gtest/gtest.h>

// [example]
#include "mha2mla/calibration.hpp"
#include "mha2mla/convert.hpp"
#include "mha2mla/mapped_file.hpp"
#include "mha2mla/tokenizer.hpp"

namespace fs = std::filesystem;

mha2mla::ConvertReport convert_on_text(const fs::path& source, const fs::path& text_file, const fs::path& destination) {
    using namespace mha2mla;
    Observer observer;  // derive from it for progress, warnings and interruption
    const Model model = Model::open(source);

    // Calibrate: statistics of queries, keys and layer inputs.
    const MappedFile file(text_file);
    const std::string_view text(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
    const auto ids = Tokenizer::load(source / "tokenizer.json").encode(text, false);
    CalibrationStats stats = calibrate(model, ids, 256, observer, {.inputs = CalibrationOptions::Inputs::moments});

    // Select: the rotary pairs of each KV head that keep RoPE.
    add_attention_ranks(model, stats, observer);
    const PairRanks ranks = attention_ranks(stats);

    // Convert: 8 rotated dimensions of each head, and 12 latent dimensions per KV head.
    StagedPlan stages;
    stages.rope = {"attention", 8, 0};
    stages.kv_rank = 12;
    stages.factorization = Factorization::whitened;
    return convert(model, destination, {stages}, {&ranks, stats.inputs.get()}, observer);
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
