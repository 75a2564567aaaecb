// What comes from files and is shown: no byte of it is obeyed by a terminal, by Markdown or by YAML.
#include "mha2mla/printable.hpp"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "convert/markdown.hpp"
#include "mha2mla/error.hpp"
#include "tokenizer/utf8.hpp"

namespace mha2mla::test {
namespace {

std::string utf8_of(std::uint32_t code) {
    std::string text;
    if (code < 0x80) return {static_cast<char>(code)};
    const int more = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
    constexpr unsigned kFirst[] = {0, 0xC0, 0xE0, 0xF0};
    text += static_cast<char>(kFirst[more] | code >> (6U * static_cast<unsigned>(more)));
    for (int i = more - 1; i >= 0; --i) {
        text += static_cast<char>(0x80U | (code >> (6U * static_cast<unsigned>(i)) & 0x3FU));
    }
    return text;
}

TEST(Printable, OfAllCharactersOnlyThoseThatAreObeyedAreReplaced) {
    std::size_t replaced = 0;
    for (std::uint32_t code = 0; code <= 0x10FFFF; ++code) {
        if (code >= 0xD800 && code <= 0xDFFF) continue;
        const std::string text = utf8_of(code);
        const std::string shown = printable(text);
        if (shown == text) continue;
        ASSERT_EQ(shown, "?") << code;
        ++replaced;
    }
    EXPECT_EQ(replaced, 32U + 33 + 1 + 5 + 7 + 16 + 1 + 128);
    for (const std::uint32_t code : {0x1BU, 0x9BU, 0x202EU, 0x2066U, 0x2028U, 0x200FU})
        EXPECT_EQ(printable(utf8_of(code)), "?");
    EXPECT_EQ(printable("größe 中文 🙂 e\u0301"), "größe 中文 🙂 e\u0301");
}

TEST(Printable, EachByteThatIsNotUtf8IsReplaced) {
    EXPECT_EQ(printable("a\xff\xfe\xc3"), "a???");
    EXPECT_EQ(printable("\xc0\x80\xed\xa0\x80\xf4\x90\x80\x80"), "?????????");
    EXPECT_EQ(printable("\xe4\xb8"), "??");
    EXPECT_EQ(printable("\x80z"), "?z");
}

TEST(Printable, AnErrorIsOneShortLine) {
    const std::string line = Error(ErrorCode::format, "tensor 'a\nb\x1b[2J\u009b31m\u202e\xff'", Remedy::deep).what();
    EXPECT_EQ(line,
              "tensor 'a?b?[2J?31m?"
              "?'; " +
                  std::string(advice(Remedy::deep)));
    const Error longer(ErrorCode::format, std::string(3'000'000, 'x') + "; the end", Remedy::deep);
    EXPECT_LT(std::string(longer.what()).size(), 5000U);
    EXPECT_TRUE(longer.message().ends_with("; the end"));
    EXPECT_TRUE(std::string(longer.what()).ends_with(advice(Remedy::deep)));
}

TEST(Printable, ShortenedTextKeepsWholeCharacters) {
    std::string text;
    for (int i = 0; i < 400; ++i) text += i % 4 == 0 ? "a" : "中";
    for (std::size_t most = 40; most < 90; ++most) {
        const std::string shown = shortened(text, most);
        EXPECT_LE(shown.size(), most + 8);
        EXPECT_FALSE(utf8::find_invalid(shown)) << most;
    }
    EXPECT_EQ(shortened("short", 5), "short");
}

TEST(Markdown, AFieldIsNoMarkup) {
    EXPECT_EQ(markdown::text("a\n# b <img> [x](y) `c` http://d"), "a?\\# b \\<img\\> \\[x\\](y) \\`c\\` http\\://d");
    EXPECT_EQ(markdown::code("a`b``c"), "```a`b``c```");
    EXPECT_EQ(markdown::code("`"), "`` ` ``");
    EXPECT_EQ(markdown::code(""), "`  `");
    EXPECT_EQ(markdown::code("a\n\n</code>"),
              "`a?"
              "?</code>`");
    EXPECT_EQ(markdown::block("sh", "x\n```\n# y\x1b"), "````sh\nx\n```\n# y?\n````\n");
}

TEST(Markdown, AFieldIsOneScalarOfYaml) {
    EXPECT_EQ(markdown::scalar("apache-2.0"), "apache-2.0");
    for (const char* other : {"no", "Null", "1.0", "a: b", "", "- a", "a #b", "x\ny: z", "\"", "{a}"}) {
        const std::string scalar = markdown::scalar(other);
        EXPECT_TRUE(scalar.starts_with('"') && scalar.ends_with('"')) << scalar;
        EXPECT_TRUE(nlohmann::json::accept(scalar)) << scalar;
        EXPECT_EQ(scalar.find('\n'), std::string::npos);
    }
}

TEST(Markdown, OfOtherFrontMatterOnlyLicenceAndLanguageAreKept) {
    const auto kept = markdown::licence_or_language;
    EXPECT_EQ(kept("license: apache-2.0"), "license: apache-2.0");
    EXPECT_EQ(kept("license: \"mit\""), "license: mit");
    EXPECT_EQ(kept("license_link: https://a/b"), "license_link: \"https://a/b\"");
    EXPECT_EQ(kept("language: [en, 'de', no]"), "language: [en, de, \"no\"]");
    EXPECT_EQ(kept("language: en\x1b"), "language: \"en?\"");
    EXPECT_EQ(kept("license: a: b # c"), "license: \"a: b # c\"");
    for (const char* line :
         {"license: !!python/object x", "license: *anchor", "license: &a b", "license: {a: b}", "license: [",
          "license:", "licenses: x", "tags: [x]", "language: [ , ]", "", "license: |"}) {
        EXPECT_EQ(kept(line), "") << line;
    }
}

}  // namespace
}  // namespace mha2mla::test
