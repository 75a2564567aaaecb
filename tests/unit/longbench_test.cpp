// The parts of LongBench: Python's texts, ratios, prompts, and the files of predictions.
#include <gtest/gtest.h>

#include <fstream>
#include <random>
#include <sstream>

#include "evaluate/longbench_prompt.hpp"
#include "evaluate/prediction_file.hpp"
#include "evaluate/python_text.hpp"
#include "evaluate/rouge_l.hpp"
#include "evaluate/sequence_matcher.hpp"
#include "mha2mla/longbench.hpp"
#include "support/expect_error.hpp"
#include "support/shared.hpp"
#include "support/temporary.hpp"
#include "tokenizer/utf8.hpp"

namespace mha2mla::test {
namespace {

void run_python(const std::string& arguments, const std::filesystem::path& out) {
    const std::string script = MHA2MLA_UNIT_TESTS_DIR "/python_text.py";
    ASSERT_EQ(std::system(("python3 '" + script + "' " + arguments + " >'" + out.string() + "'").c_str()), 0);
}

/// A text over few letters, so that much matches, with some beyond ASCII.
std::u32string random_text(std::mt19937& random, std::size_t length, std::size_t letters) {
    std::u32string text;
    for (std::size_t i = 0; i < length; ++i) text += U"ab c\nde\u00E9fghij\U0001F600klmn"[random() % letters];
    return text;
}

std::string utf8_of(std::u32string_view text) {
    std::string out;
    for (const char32_t c : text) utf8::append(out, c);
    return out;
}

TEST(SequenceRatio, EqualsDifflibOnRandomTexts) {
    std::mt19937 random(5);
    std::vector<std::pair<std::u32string, std::u32string>> pairs;
    for (int i = 0; i < 400; ++i) {
        // On both sides of the 200 characters from which frequent ones begin no block.
        const std::size_t longest = i % 4 == 0 ? 12 : 420;
        const std::size_t letters = 1 + random() % 19;
        auto a = random_text(random, random() % longest, letters);
        auto b = random_text(random, random() % longest, letters);
        if (i % 3 == 0) b = a.substr(a.size() / 3) + b + a.substr(0, a.size() / 2);
        if (i % 7 == 0) b.insert(b.size() / 2, U"0123456789xyz"), a.insert(a.size() / 3, U"123456xyz789");
        pairs.emplace_back(std::move(a), std::move(b));
    }
    nlohmann::json json = nlohmann::json::array();
    for (const auto& [a, b] : pairs) json.push_back({utf8_of(a), utf8_of(b)});
    const TemporaryDirectory directory;
    write_text(directory / "pairs.json", json.dump());
    run_python("ratios '" + (directory / "pairs.json").string() + "'", directory / "ratios.json");
    const auto ratios = read_json(directory / "ratios.json");
    ASSERT_EQ(ratios.size(), pairs.size());
    std::size_t between = 0;
    for (std::size_t i = 0; i < pairs.size(); ++i) {
        EXPECT_EQ(sequence_ratio(pairs[i].first, pairs[i].second), ratios[i].get<double>()) << json[i].dump();
        between += ratios[i] > 0.05 && ratios[i] < 0.95 ? 1 : 0;
    }
    EXPECT_GT(between, 150U) << "the texts say little";
}

std::string place_of(std::u32string_view text) {
    return python::lower(text).find(U'\u03C2') != std::u32string::npos ? "f" : "n";
}

TEST(PythonText, EveryCharacterIsWhatPythonSays) {
    const TemporaryDirectory directory;
    run_python("characters", directory / "characters");
    std::ifstream lines(directory / "characters");
    std::string line;
    std::getline(lines, line);
    if (line != "14.0.0") GTEST_SKIP() << "this Python has Unicode " << line << ", LongBench's scores are of 14.0.0";
    std::size_t wrong = 0;
    for (char32_t c = 0; c < 0x110000; ++c) {
        if (c >= 0xD800 && c < 0xE000) continue;
        ASSERT_TRUE(std::getline(lines, line));
        const std::u32string one(1, c);
        std::ostringstream ours;
        ours << (python::is_space(c) ? "s" : "") << (python::is_word(c) ? "w" : "") << (python::is_digit(c) ? "d" : "")
             << ' ' << place_of(one + U"\u03A3") << place_of(U"a" + one + U"\u03A3") << place_of(U"a\u03A3" + one)
             << place_of(U"a\u03A3" + one + U"a");
        for (const char32_t lowered : python::lower(one)) ours << ' ' << std::hex << std::uint32_t{lowered};
        if (ours.str() == line) continue;
        ++wrong;
        EXPECT_LT(wrong, 20U) << std::hex << std::uint32_t{c} << ": " << ours.str() << " instead of " << line;
    }
    EXPECT_EQ(wrong, 0U);
}

TEST(PythonText, Splits) {
    using Texts = std::vector<std::u32string>;
    EXPECT_EQ(python::split(U"  a\u00A0b\u001Cc\n"), (Texts{U"a", U"b", U"c"}));
    EXPECT_EQ(python::split(U" \n"), Texts());
    EXPECT_EQ(python::split_at(U".a..b", U'.'), (Texts{U"", U"a", U"", U"b"}));
    EXPECT_EQ(python::split_at(U"", U'.'), Texts{U""});
    EXPECT_EQ(python::numbers_in(U"07 and \u0663\u0664, x1"), (Texts{U"07", U"\u0663\u0664", U"1"}));
    EXPECT_EQ(python::decode("a\xFFz"), U"a\uFFFDz");
}

TEST(RougeL, DoesNotEndAtTheDepthOfARecursion) {
    std::u32string words;
    for (int i = 0; i < 3000; ++i) words += U" word" + std::u32string(1, U'\u4E00' + static_cast<char32_t>(i));
    EXPECT_NEAR(rouge_l(words, words), 1, 1e-7);
    EXPECT_LT(rouge_l(words, words), 1);
}

LongbenchItem item_of(std::string context, std::string input) {
    return {std::move(context), std::move(input), {"x"}, {}, 1, {}};
}

class LongbenchPrompts : public testing::Test {
protected:
    LongbenchPrompt make(const std::string& task, const LongbenchItem& item) const {
        return PromptMaker(model_, tokenizer_, options_).make(longbench_task(task), item);
    }
    std::string text_of(const LongbenchPrompt& prompt) const { return tokenizer_.decode(prompt.ids, false); }

    const Model model_ = Model::open(example("kjv-1.8M"));
    const Tokenizer tokenizer_ = Tokenizer::load(example("kjv-1.8M") / "tokenizer.json");
    LongbenchOptions options_;
};

TEST_F(LongbenchPrompts, BracesInTextsAreText) {
    const auto prompt = make("trec", item_of("a {input} {context} {", "} b"));
    EXPECT_FALSE(prompt.truncated);
    EXPECT_EQ(text_of(prompt),
              "Please determine the type of the question below. Here are some examples of questions.\n\n"
              "a {input} {context} {\n} b");
}

TEST_F(LongbenchPrompts, TheMiddleIsLeftOut) {
    std::string context;
    for (int i = 0; i < 500; ++i) context += "verse " + std::to_string(i) + ", ";
    options_.max_tokens = 101;
    const auto halves = make("qasper", item_of(context, "Who?"));
    EXPECT_TRUE(halves.truncated);
    EXPECT_LE(halves.ids.size(), 101U);
    EXPECT_GE(halves.ids.size(), 90U);
    EXPECT_TRUE(text_of(halves).starts_with("You are given a scientific article"));
    EXPECT_TRUE(text_of(halves).ends_with("Question: Who?\n\nAnswer:"));
    options_.protocol = LongbenchProtocol::mha2mla;
    options_.max_tokens = 128 + 101;
    EXPECT_EQ(make("qasper", item_of(context, "Who?")).ids.size(), 101U);
}

TEST_F(LongbenchPrompts, AChatPromptIsPutAroundAfterTheCutAndNotEverywhere) {
    options_.chat = "<<{prompt}>>";
    options_.max_tokens = 60;
    const auto chat = text_of(make("qasper", item_of(std::string(3000, 'x'), "Who?")));
    EXPECT_TRUE(chat.starts_with("<<You are given")) << chat;
    EXPECT_TRUE(chat.ends_with("Answer:>>")) << chat;
    EXPECT_EQ(text_of(make("trec", item_of("x", "y"))).find("<<"), std::string::npos);
}

TEST_F(LongbenchPrompts, LengthsThatLeaveNoRoomAreRefused) {
    Observer observer;
    expect_error(ErrorCode::usage, {"gov_report generates 512 tokens", "512 positions", "leave the task out"},
                 [&] { check_lengths(longbench_task("gov_report"), model_.config, options_, observer); });
    options_.protocol = LongbenchProtocol::mha2mla;
    options_.max_tokens = 64;
    expect_error(ErrorCode::usage, {"trec generates 64 tokens", "and 64 tokens leave no room"},
                 [&] { check_lengths(longbench_task("trec"), model_.config, options_, observer); });
}

TEST_F(LongbenchPrompts, AContextWhoseCutLosesTokensEndsAsInTheEvaluationOfThePaper) {
    options_.protocol = LongbenchProtocol::mha2mla;
    options_.max_tokens = 600;
    std::string context;
    for (int i = 0; i < 500; ++i) context += " congregation";  // one token each
    expect_error(ErrorCode::unsupported, {"4800 characters", "ends here too"},
                 [&] { (void)make("trec", item_of(context, "y")); });
}

TEST(PredictionFile, KeepsWholeLinesAndIsLocked) {
    const TemporaryDirectory directory;
    write_text(directory / "p", "one\ntwo\nthr");
    using Start = PredictionFile::Start;
    {
        PredictionFile file(directory / "p", Start::resume);
        EXPECT_EQ(read_text(directory / "p"), "one\ntwo\n");
        file.append("three\n");
        expect_error(ErrorCode::io, {"another process"}, [&] { PredictionFile(directory / "p", Start::resume); });
        expect_error(ErrorCode::io, {"another process"}, [&] { PredictionFile(directory / "p", Start::empty); });
    }
    EXPECT_EQ(read_text(directory / "p"), "one\ntwo\nthree\n");
    PredictionFile(directory / "p", Start::empty).append("1\n");
    EXPECT_EQ(read_text(directory / "p"), "1\n");
    std::filesystem::create_symlink(directory / "p", directory / "link");
    expect_error(ErrorCode::io, {"link"}, [&] { PredictionFile(directory / "link", Start::empty); });
}

}  // namespace
}  // namespace mha2mla::test
