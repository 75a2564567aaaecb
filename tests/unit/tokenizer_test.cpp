// The meaning of a tokenizer.json, on vocabularies that are small enough to check by hand.

#include "mha2mla/tokenizer.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "mha2mla/error.hpp"
#include "support/tokenizer_json.hpp"

namespace mha2mla::test {
namespace {

using Ids = std::vector<TokenId>;

/// The words into which a pre-tokenizer splits a text, identified by a vocabulary in which each expected word is a
/// token.
Names words_of(const json& pre_tokenizer, const std::string& text, const Names& expected) {
    Names names = expected;
    std::sort(names.begin(), names.end());
    names.erase(std::unique(names.begin(), names.end()), names.end());
    names.emplace_back("<unk>");
    const auto tokenizer = make(bpe_model(names, json::array(), {{"ignore_merges", true}, {"unk_token", "<unk>"}}),
                                {{"pre_tokenizer", pre_tokenizer}});
    Names out;
    for (const TokenId id : tokenizer.encode(text, false)) out.push_back(*tokenizer.id_to_token(id));
    return out;
}

void expect_words(const json& pre_tokenizer, const std::string& text, const Names& expected) {
    EXPECT_EQ(words_of(pre_tokenizer, text, expected), expected) << pre_tokenizer << " on " << text;
}

/// Normalizes a text by encoding it and concatenating the names of its tokens.
std::string normalized(const json& normalizer, const std::string& text) {
    const auto tokenizer = make(bpe_model({"<unk>"}, json::array(),
                                          {{"byte_fallback", true},
                                           {"vocab",
                                            [] {
                                                json bytes = json::object();
                                                for (int b = 0; b < 256; ++b) {
                                                    std::array<char, 8> name{};
                                                    std::snprintf(name.data(), name.size(), "<0x%02X>", b);
                                                    bytes[name.data()] = b;
                                                }
                                                return bytes;
                                            }()}}),
                                {{"normalizer", normalizer}});
    std::string out;
    for (const TokenId id : tokenizer.encode(text, false)) out += static_cast<char>(id);
    return out;
}

// merges

TEST(Bpe, MakesTheMergeOfLeastRankFirstAndTheLeftmostOfEqualOnes) {
    const auto ranked = make(bpe_model({"a", "b", "c", "ab", "bc"}, {"b c", "a b"}));
    EXPECT_EQ(ranked.encode("abc", false), (Ids{0, 4}));
    const auto equal = make(bpe_model({"a", "aa"}, {"a a"}));
    EXPECT_EQ(equal.encode("aaa", false), (Ids{1, 0}));
}

TEST(Bpe, PairsOfStringsMeanTheSameAsLines) {
    const auto lines = make(bpe_model({"a", "b", "ab"}, {"#version: 0.2", "a b"}));
    const auto pairs = make(bpe_model({"a", "b", "ab"}, json::array({json::array({"a", "b"})})));
    EXPECT_EQ(lines.encode("abab", false), (Ids{2, 2}));
    EXPECT_EQ(pairs.encode("abab", false), (Ids{2, 2}));
    // Only the form with pairs allows tokens that contain a space.
    const auto space = make(bpe_model({"a", " ", "a "}, json::array({json::array({"a", " "})})));
    EXPECT_EQ(space.encode("a a", false), (Ids{2, 0}));
}

/// Cutting words between merges and caching their parts must not change the result of the simple algorithm.
TEST(Bpe, AgreesWithTheDefinitionOnRandomMerges) {
    std::mt19937 random(7);
    for (int round = 0; round < 200; ++round) {
        Names names{"<unk>", "<0x78>", "<0x79>", "<", "a", "b", "c", "é", "▁"};
        json merges = json::array();
        for (int i = 0; i < 25; ++i) {
            const std::string left = names[random() % names.size()];
            const std::string right = names[random() % names.size()];
            if (std::find(names.begin(), names.end(), left + right) == names.end()) names.push_back(left + right);
            merges.push_back(json::array({left, right}));
        }
        const auto tokenizer = make(bpe_model(
            names, merges, {{"unk_token", "<unk>"}, {"fuse_unk", round % 2 == 0}, {"byte_fallback", round % 3 != 0}}));
        std::string text;
        for (int i = 0; i < 60; ++i) text += Names{"a", "b", "c", "é", "▁", "<", "x", "y", "?"}[random() % 9];

        // The definition: repeatedly merge the adjacent pair of lowest rank, the leftmost of equal ones. The initial
        // symbols are those of the same vocabulary without merges.
        const auto spell =
            make(bpe_model(names, json::array(),
                           {{"unk_token", "<unk>"}, {"fuse_unk", round % 2 == 0}, {"byte_fallback", round % 3 != 0}}));
        Names symbols;
        for (const TokenId id : spell.encode(text, false)) symbols.push_back(*spell.id_to_token(id));
        while (true) {
            std::size_t best_rank = merges.size();
            std::size_t best = 0;
            for (std::size_t at = 0; at + 1 < symbols.size(); ++at) {
                for (std::size_t rank = merges.size(); rank-- > 0;) {
                    if (merges[rank][0] != symbols[at] || merges[rank][1] != symbols[at + 1]) continue;
                    if (rank < best_rank) {  // if a pair is repeated in the file, the last one counts
                        best_rank = rank;
                        best = at;
                    }
                    break;
                }
            }
            if (best_rank == merges.size()) break;
            symbols[best] += symbols[best + 1];
            symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(best) + 1);
        }
        Names got;
        for (const TokenId id : tokenizer.encode(text, false)) got.push_back(*tokenizer.id_to_token(id));
        ASSERT_EQ(got, symbols) << text << " with " << merges;
    }
}

TEST(Bpe, UnknownCharactersAreFusedOnlyIfAsked) {
    const Names names{"<unk>", "a"};
    EXPECT_EQ(make(bpe_model(names, json::array(), {{"unk_token", "<unk>"}})).encode("a??a", false), (Ids{1, 0, 0, 1}));
    EXPECT_EQ(make(bpe_model(names, json::array(), {{"unk_token", "<unk>"}, {"fuse_unk", true}})).encode("a??a", false),
              (Ids{1, 0, 1}));
    EXPECT_EQ(make(bpe_model(names)).encode("a??a", false), (Ids{1, 1}));
    expect_error(ErrorCode::format, {"unk_token", "<none>"}, [&] {
        return make(bpe_model(names, json::array(), {{"unk_token", "<none>"}})).encode("?", false);
    });
}

TEST(Bpe, BytesReplaceACharacterOnlyIfAllOfThemAreTokens) {
    const json more = {{"unk_token", "<unk>"}, {"byte_fallback", true}};
    const auto whole = make(bpe_model({"<unk>", "a", "<0xC3>", "<0xA9>"}, json::array(), more));
    EXPECT_EQ(whole.encode("aéa", false), (Ids{1, 2, 3, 1}));
    const auto half = make(bpe_model({"<unk>", "a", "<0xC3>"}, json::array(), more));
    EXPECT_EQ(half.encode("aéa", false), (Ids{1, 0, 1}));
}

TEST(Bpe, IgnoreMergesTakesAWordThatIsAToken) {
    const Names names{"a", "b", "c", "ab", "abc"};
    EXPECT_EQ(make(bpe_model(names, {"a b"})).encode("abc", false), (Ids{3, 2}));
    EXPECT_EQ(make(bpe_model(names, {"a b"}, {{"ignore_merges", true}})).encode("abc", false), (Ids{4}));
}

TEST(Bpe, AffixesMarkTheInsideAndTheEndOfWords) {
    const auto suffix = make(bpe_model({"a", "b", "b</w>", "ab</w>"}, {"a b</w>"}, {{"end_of_word_suffix", "</w>"}}),
                             {{"pre_tokenizer", split({{"String", " "}}, "Removed")}});
    EXPECT_EQ(suffix.encode("ab bab", false), (Ids{3, 1, 3}));
    const auto prefix = make(bpe_model({"a", "##b", "ab"}, {"a ##b"}, {{"continuing_subword_prefix", "##"}}));
    EXPECT_EQ(prefix.encode("abb", false), (Ids{2, 1}));
}

TEST(Bpe, AWordOfAMegabyteIsNotQuadratic) {
    const auto tokenizer = make(bpe_model({"a", "b", "aa", "aaaa", "ab"}, {"a a", "aa aa", "a b"}));
    const auto begin = std::chrono::steady_clock::now();
    const auto ids = tokenizer.encode(std::string(1'000'000, 'a'), false);
    EXPECT_EQ(ids, Ids(250'000, 3));
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(20));
}

// normalizers

TEST(Normalizers, DoWhatTheirNamesSay) {
    EXPECT_EQ(normalized({{"type", "NFC"}}, "e\u0301 \u212B"), "é Å");
    EXPECT_EQ(normalized({{"type", "NFD"}}, "é 각"), "e\u0301 \u1100\u1161\u11A8");
    EXPECT_EQ(normalized({{"type", "NFKC"}}, "ﬁ ① e\u0301"), "fi 1 é");
    EXPECT_EQ(normalized({{"type", "NFKD"}}, "ﬁ é"), "fi e\u0301");
    EXPECT_EQ(normalized({{"type", "NFC"}}, "각 q\u0307\u0323"), "각 q\u0323\u0307");
    EXPECT_EQ(normalized({{"type", "Lowercase"}}, "ÀÉ İ ΣΑΣ"), "àé i\u0307 σασ");
    EXPECT_EQ(normalized({{"type", "Strip"}, {"strip_left", true}, {"strip_right", false}}, "\u3000 a "), "a ");
    EXPECT_EQ(normalized({{"type", "Strip"}, {"strip_left", true}, {"strip_right", true}}, " \u00A0 "), "");
    EXPECT_EQ(normalized({{"type", "Prepend"}, {"prepend", "▁"}}, "a"), "▁a");
    EXPECT_EQ(normalized({{"type", "Replace"}, {"pattern", {{"String", "."}}}, {"content", "!"}}, "a.b."), "a!b!");
    EXPECT_EQ(normalized({{"type", "Replace"}, {"pattern", {{"Regex", R"(\s+)"}}}, {"content", " "}}, "a \t b"), "a b");
    EXPECT_EQ(normalized({{"type", "Sequence"}, {"normalizers", json::array()}}, "a"), "a");
}

TEST(Normalizers, ManyCombiningMarksAreNotQuadratic) {
    std::string marks = "a";
    std::string sorted = "a";
    for (int i = 0; i < 100'000; ++i) marks += "\u0301\u0323";
    const std::string composed = normalized({{"type", "NFD"}}, marks);
    for (int i = 0; i < 100'000; ++i) sorted += "\u0323";
    for (int i = 0; i < 100'000; ++i) sorted += "\u0301";
    EXPECT_TRUE(composed == sorted);
}

// pre-tokenizers

TEST(Split, EveryBehaviorAsInItsDefinition) {
    const json dash = {{"String", "-"}};
    const std::string text = "the-final--countdown";
    expect_words(split(dash, "Removed"), text, {"the", "final", "countdown"});
    expect_words(split(dash, "Isolated"), text, {"the", "-", "final", "-", "-", "countdown"});
    expect_words(split(dash, "MergedWithPrevious"), text, {"the-", "final-", "-", "countdown"});
    expect_words(split(dash, "MergedWithNext"), text, {"the", "-final", "-", "-countdown"});
    expect_words(split(dash, "Contiguous"), text, {"the", "-", "final", "--", "countdown"});
    expect_words(split(dash, "MergedWithPrevious"), "-a-", {"-", "a-"});
    expect_words(split(dash, "MergedWithNext"), "-a-", {"-a", "-"});
}

TEST(Split, InvertExchangesWordsAndDelimiters) {
    const json word = {{"Regex", R"(\w+|[^\w\s]+)"}};
    expect_words(split(word, "Removed", true), "How are you?", {"How", "are", "you", "?"});
    expect_words(split(word, "MergedWithPrevious", true), "How are you?", {"How ", "are ", "you", "?"});
    expect_words(split(word, "MergedWithNext", true), "How are you?", {"How", " are", " you", "?"});
    expect_words(split(word, "Contiguous", true), "How are you?", {"How", " ", "are", " ", "you?"});
}

TEST(Split, EmptyMatchesCut) {
    expect_words(split({{"Regex", "(?=[A-Z])"}}, "Isolated"), "camelCaseÉX", {"camel", "CaseÉ", "X"});
}

TEST(Digits, OneByOneOrInRuns) {
    expect_words({{"type", "Digits"}, {"individual_digits", true}}, "a12½b", {"a", "1", "2", "½", "b"});
    expect_words({{"type", "Digits"}, {"individual_digits", false}}, "a12½b", {"a", "12½", "b"});
}

TEST(ByteLevel, WritesBytesAsCharactersAndSplitsAsGpt2) {
    const json byte_level = {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"use_regex", true}};
    expect_words(byte_level, "I'll é \n", {"ĠI", "'ll", "ĠÃ©", "ĠĊ"});
    const json whole = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}};
    expect_words(whole, "a b", {"aĠb"});
    expect_words({{"type", "Sequence"}, {"pretokenizers", {split({{"String", " "}}, "Isolated"), whole}}}, "a b",
                 {"a", "Ġ", "b"});
}

TEST(Metaspace, BothSpellings) {
    const json older = {{"type", "Metaspace"}, {"replacement", "▁"}, {"add_prefix_space", true}};
    expect_words(older, "Hey  you", {"▁Hey", "▁", "▁you"});
    expect_words(older, " Hey", {"▁Hey"});
    const json never = {{"type", "Metaspace"}, {"replacement", "_"}, {"prepend_scheme", "never"}, {"split", false}};
    expect_words(never, "a b", {"a_b"});
    const json first = {{"type", "Metaspace"}, {"replacement", "▁"}, {"prepend_scheme", "first"}};
    expect_words({{"type", "Sequence"}, {"pretokenizers", {split({{"String", "-"}}, "Isolated"), first}}}, "a-b",
                 {"▁a", "-", "b"});
}

// regular expressions: the meaning in Ruby's syntax, not in Perl's

TEST(Regex, ClassesAreThoseOfOniguruma) {
    const auto isolated = [](const char* regex) { return split({{"Regex", regex}}, "Isolated"); };
    // The next-line control is white space, the Mongolian vowel separator is not.
    expect_words(isolated(R"(\s)"), "a\u0085b", {"a", "\u0085", "b"});
    expect_words(isolated(R"(\s)"), "a\u180Eb", {"a\u180Eb"});
    expect_words(isolated(R"([^\s\p{L}]+)"), "a\u180E b", {"a", "\u180E", " ", "b"});
    expect_words(isolated(R"([\S]+)"), "a b", {"a", " ", "b"});
    // Marks and connectors belong to words.
    expect_words(isolated(R"(\w+)"), "a\u0301b_c-d", {"a\u0301b_c", "-", "d"});
    expect_words(isolated(R"(\W)"), "a\u0301-b", {"a\u0301", "-", "b"});
    expect_words(isolated(R"(\bb)"), "a\u0301b b", {"a\u0301b ", "b"});
    // \h is a hexadecimal digit, \p{Han} the script itself, ^ and $ are ends of lines, (?m) lets the dot match them.
    expect_words(isolated(R"(\h+)"), "xyFFz", {"xy", "FF", "z"});
    expect_words(isolated(R"(\p{Han}+)"), "a漢字、b", {"a", "漢字", "、b"});
    expect_words(isolated("^b"), "a\nb", {"a\n", "b"});
    expect_words(isolated("(?m:a.)"), "ca\nb", {"c", "a\n", "b"});
    expect_words(isolated(R"(\u0061)"), "bab", {"b", "a", "b"});
}

TEST(Regex, PatternsOfRealVocabularies) {
    const json llama3 = {
        {"Regex",
         R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"}};
    expect_words(split(llama3, "Isolated"), "We'LL pay  12345 $!\n\n ok ",
                 {"We", "'LL", " pay", " ", " ", "123", "45", " $!\n\n", " ok", " "});
    const json possessive = {{"Regex", R"([^\r\n\p{L}\p{N}]?+\p{L}++|\s++$|\s+(?!\S)|\s)"}};
    expect_words(split(possessive, "Isolated"), "a  b  ", {"a", " ", " b", "  "});
}

TEST(Regex, WhatPcreWouldReadDifferentlyIsRefused) {
    for (const char* const pattern : {"(?i:[a-z&&[^b]])",
                                      "(?i:[a[^b]])",
                                      R"(\p{N}{1,3}+)",
                                      R"([\R])",
                                      "(?s:.)",
                                      "(?<x>a\\g<x>)",
                                      "(a(?1))",
                                      "(?R)",
                                      "(?P<x>a)",
                                      "(a(?-1))",
                                      "[a",
                                      "[]",
                                      "[a[b]",
                                      "[[:graph:]]",
                                      R"([\p])",
                                      R"(\R)",
                                      R"(\p{NoSuchThing})",
                                      "(",
                                      R"(\)",
                                      R"(\p{)",
                                      R"(\u12)",
                                      "[[:alpha:",
                                      "a**b("}) {
        expect_refused(ErrorCode::unsupported, {"test.json", "pre_tokenizer.pattern.Regex", "regular expression"},
                       file_with("pre_tokenizer", split({{"Regex", pattern}}, "Isolated")));
    }
}

TEST(Regex, BacktrackingWithoutEndIsAnError) {
    const auto tokenizer = make(ascii_model(), {{"pre_tokenizer", split({{"Regex", "(a|aa)+[0-9]"}}, "Isolated")}});
    expect_error(ErrorCode::unsupported, {"(a|aa)+[0-9]", "exceeded its limits"},
                 [&] { return tokenizer.encode(std::string(5000, 'a') + "b", false); });
}

/// What a pattern may do is in proportion to the text, also where PCRE2 does not count its steps.
TEST(Regex, SquareTimeIsAnError) {
    std::string text;
    for (int i = 0; i < 60'000; ++i) text += "in the aa ";
    const auto begin = std::chrono::steady_clock::now();
    for (const char* const pattern : {R"(\w(?=[^\x00]*\x00))", "(?=.*x)a", "a(?=[^b]*b)", R"((?:\w(?=[^\x00]*z)| )+)",
                                      R"((?:[^\x00]*z|\w))", R"((?<=(?=[^z]*z)a)a)"}) {
        const auto tokenizer = make(ascii_model(), {{"pre_tokenizer", split({{"Regex", pattern}}, "Isolated")}});
        expect_error(ErrorCode::unsupported, {"exceeded its limits"}, [&] { return tokenizer.encode(text, false); });
    }
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(60));
}

/// Texts are matched in parts; where a part ends must not be seen.
TEST(Regex, LongMatchesAreTheSameAsShortOnes) {
    for (const std::size_t size : {1u, 200u, 255u, 256u, 257u, 258u, 1023u, 1024u, 5000u, 300'000u}) {
        const std::string run(size, 'a');
        const auto expect = [&](const char* pattern, const std::string& text, const Names& words) {
            expect_words(split({{"Regex", pattern}}, "Isolated"), text, words);
        };
        expect("a+", run + "-", {run, "-"});
        expect("a+$", run + "\n-", {run, "\n-"});
        expect(R"(\n^a)", run + "\na-", {run, "\na", "-"});
        expect("a+(?!-)", run + "a-", {run, "a-"});
        expect("-", run + "-" + run, {run, "-", run});
        expect("(?=-)", run + "-", {run, "-"});
        expect("(?<=a)(?=-)|(?<=-)(?!-)", run + "-" + run, {run, "-", run});
        if (size < 5000) expect(R"(\ba+\b)", run + "é-", {run + "é-"});
        expect("(?:a|b)+c", run + "c-", {run + "c", "-"});
    }
}

TEST(Effort, ATextMayNotGrowWithoutEnd) {
    const json doubling = {{"type", "Replace"}, {"pattern", {{"String", "e"}}}, {"content", "ee"}};
    const json million = {
        {"type", "Replace"}, {"pattern", {{"String", "e"}}}, {"content", std::string(1'000'000, 'x')}};
    const json byte_level = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}};
    const std::string text(2000, 'e');
    const auto steps = [](const char* key, const json& step) {
        return json{{"type", "Sequence"}, {key, std::vector<json>(22, step)}};
    };
    for (const json& parts : {json{{"normalizer", steps("normalizers", doubling)}}, json{{"normalizer", million}},
                              json{{"normalizer", steps("normalizers", {{"type", "ByteLevel"}})}},
                              json{{"pre_tokenizer", steps("pretokenizers", byte_level)}}}) {
        const auto tokenizer = make(ascii_model(), parts);
        expect_error(ErrorCode::unsupported, {"16 times as long"}, [&] { return tokenizer.encode(text + "é", false); });
    }
    const auto tokenizer = make(ascii_model(), {{"decoder", steps("decoders", doubling)}});
    expect_error(ErrorCode::unsupported, {"16 times as long"},
                 [&] { return tokenizer.decode(tokenizer.encode(text, false), false); });
}

// added tokens

TEST(AddedTokens, TheLeftmostAndThenTheLongestIsFound) {
    const auto tokenizer =
        make(bpe_model({"a", "b", "c"}), {{"added_tokens", {added(3, "ab"), added(4, "abc"), added(5, "bca")}}});
    EXPECT_EQ(tokenizer.encode("abcab", false), (Ids{4, 3}));
    EXPECT_EQ(tokenizer.encode("bcab", false), (Ids{5, 1}));
    EXPECT_EQ(tokenizer.vocab_size(), 6u);
}

TEST(AddedTokens, IncludeWhiteSpaceIfAsked) {
    const auto tokenizer =
        make(bpe_model({"a", " "}),
             {{"added_tokens",
               {added(2, "<l>", {{"lstrip", true}}), added(3, "<r>", {{"rstrip", true}}), added(4, "<n>")}}});
    EXPECT_EQ(tokenizer.encode("a <l> a", false), (Ids{0, 2, 1, 0}));
    EXPECT_EQ(tokenizer.encode("a <r>\t\u3000a", false), (Ids{0, 1, 3, 0}));
    EXPECT_EQ(tokenizer.encode("a <n> a", false), (Ids{0, 1, 4, 1, 0}));
    EXPECT_EQ(tokenizer.encode("<r>  <l>", false), (Ids{3, 2}));
}

TEST(AddedTokens, SingleWordsTouchNoOtherWord) {
    const auto tokenizer =
        make(bpe_model({"a", "-", "x"}), {{"added_tokens", {added(3, "xx", {{"single_word", true}})}}});
    EXPECT_EQ(tokenizer.encode("xx-xx", false), (Ids{3, 1, 3}));
    EXPECT_EQ(tokenizer.encode("axx-", false), (Ids{0, 2, 2, 1}));
}

TEST(AddedTokens, NormalizedOnesAreFoundInTheirNormalizedForm) {
    const json lower = {{"type", "Lowercase"}};
    const json tokens = {added(3, "AB", {{"normalized", true}}), added(4, "BA")};
    const auto tokenizer = make(bpe_model({"a", "b", "c"}), {{"normalizer", lower}, {"added_tokens", tokens}});
    EXPECT_EQ(tokenizer.encode("CaBc", false), (Ids{2, 3, 2}));
    EXPECT_EQ(tokenizer.encode("ba", false), (Ids{1, 0}));
    EXPECT_EQ(tokenizer.encode("cBAc", false), (Ids{2, 4, 2}));
}

TEST(AddedTokens, EveryPieceBetweenThemIsNormalizedByItself) {
    const json prepend = {{"type", "Prepend"}, {"prepend", "_"}};
    const auto tokenizer = make(bpe_model({"a", "_"}), {{"normalizer", prepend}, {"added_tokens", {added(2, "<s>")}}});
    EXPECT_EQ(tokenizer.encode("a<s>a<s>", false), (Ids{1, 0, 2, 1, 0, 2}));
}

TEST(AddedTokens, SpecialOnesAreOmittedIfAsked) {
    const auto tokenizer = make(
        bpe_model({"a"}),
        {{"added_tokens", {added(1, "<s>", {{"special", true}}), added(2, "<t>")}}, {"decoder", {{"type", "Fuse"}}}});
    EXPECT_EQ(tokenizer.decode(Ids{1, 0, 2}, false), "<s>a<t>");
    EXPECT_EQ(tokenizer.decode(Ids{1, 0, 2}, true), "a<t>");
}

// post-processors and decoders

TEST(PostProcessor, TheTemplateIsAppliedOnlyIfAsked) {
    const json special = {{"<s>", {{"id", "<s>"}, {"ids", {1}}, {"tokens", {"<s>"}}}},
                          {"</s>", {{"id", "</s>"}, {"ids", {2, 2}}, {"tokens", {"</s>", "</s>"}}}}};
    const json single = {{{"SpecialToken", {{"id", "<s>"}, {"type_id", 0}}}},
                         {{"Sequence", {{"id", "A"}, {"type_id", 0}}}},
                         {{"SpecialToken", {{"id", "</s>"}, {"type_id", 0}}}}};
    const json around = {{"type", "TemplateProcessing"}, {"single", single}, {"special_tokens", special}};
    const json both = {{"type", "Sequence"}, {"processors", {{{"type", "ByteLevel"}}, around}}};
    for (const json& processor : {around, both}) {
        const auto tokenizer = make(bpe_model({"a", "<s>", "</s>"}), {{"post_processor", processor}});
        EXPECT_EQ(tokenizer.encode("a", true), (Ids{1, 0, 2, 2}));
        EXPECT_EQ(tokenizer.encode("", true), (Ids{1, 2, 2}));
        EXPECT_EQ(tokenizer.encode("a", false), (Ids{0}));
    }
}

std::string decoded(const json& decoder, const Names& tokens) {
    const auto tokenizer = make(bpe_model(tokens), {{"decoder", decoder}});
    Ids ids;
    for (const auto& token : tokens) ids.push_back(*tokenizer.token_to_id(token));
    return tokenizer.decode(ids, false);
}

TEST(Decoders, DoWhatTheirNamesSay) {
    EXPECT_EQ(decoded(nullptr, {"a", "b"}), "a b");
    EXPECT_EQ(decoded({{"type", "Fuse"}}, {"a", "b"}), "ab");
    EXPECT_EQ(decoded({{"type", "ByteLevel"}}, {"Hi", "Ġthere", "ÃŃ", "a b"}), "Hi thereía b");
    EXPECT_EQ(decoded({{"type", "Metaspace"}, {"replacement", "▁"}}, {"▁Hey", "▁you"}), "Hey you");
    EXPECT_EQ(decoded({{"type", "Metaspace"}, {"replacement", "▁"}, {"prepend_scheme", "never"}}, {"▁Hey"}), " Hey");
    EXPECT_EQ(decoded({{"type", "Strip"}, {"content", "H"}, {"start", 1}, {"stop", 0}}, {"HHey", " H"}), "Hey H");
    EXPECT_EQ(decoded({{"type", "Strip"}, {"content", "y"}, {"start", 0}, {"stop", 2}}, {"yeyyy"}), "yey");
    EXPECT_EQ(decoded({{"type", "Replace"}, {"pattern", {{"String", "▁"}}}, {"content", " "}}, {"a▁b", "▁"}), "a b ");
}

TEST(Decoders, BytesBecomeTextAndAnIncompleteEndIsKept) {
    const json fallback = {{"type", "ByteFallback"}};
    EXPECT_EQ(decoded(fallback, {"<0xE5>", "<0x8f>", "<0xab>", "a"}), "叫a");
    EXPECT_EQ(decoded(fallback, {"<0xE5>", "<0x8F>", "a"}), "\uFFFD\uFFFDa");
    EXPECT_EQ(decoded(fallback, {"a", "<0xE5>", "<0x8F>"}), "a\xE5\x8F");
    EXPECT_EQ(decoded(fallback, {"a", "<0x8F>"}), "a\uFFFD");
    const json byte_level = {{"type", "ByteLevel"}};
    EXPECT_EQ(decoded(byte_level, {"å", "ı"}), "\xE5\x8F");
    EXPECT_EQ(decoded(byte_level, {"å", "ı", "a"}), "\uFFFDa");
    // A later step must handle the incomplete character.
    const json then_replace = {
        {"type", "Sequence"},
        {"decoders", {byte_level, {{"type", "Replace"}, {"pattern", {{"Regex", "."}}}, {"content", "-"}}}}};
    EXPECT_EQ(decoded(then_replace, {"a", "å", "ı"}), "-\xE5\x8F");
}

TEST(Decode, IdsWithoutTokenAddNothing) {
    const auto tokenizer = make(bpe_model({"a"}), {{"decoder", {{"type", "Fuse"}}}});
    EXPECT_EQ(tokenizer.decode(Ids{0, -1, 1, 2'000'000'000, 0}, false), "aa");
    EXPECT_FALSE(tokenizer.id_to_token(-1));
    EXPECT_FALSE(tokenizer.token_to_id("b"));
}

// the whole tokenizer

TEST(Tokenizer, ByteLevelDecodesEveryTextThatItEncodes) {
    const auto tokenizer = Tokenizer::parse(byte_level_file().dump(), "test.json");
    std::mt19937 random(3);
    for (int round = 0; round < 100; ++round) {
        std::string text;
        for (int i = 0; i < 40; ++i) {
            text += Names{"the", " ", "\n", "é", "漢", "👩‍👩‍👧", "1", "'ll", "\u0301", std::string(1, '\0')}
                [random() % 10];
        }
        EXPECT_EQ(tokenizer.decode(tokenizer.encode(text, true), true), text);
    }
}

TEST(Tokenizer, SeveralThreadsMayShareOne) {
    const auto tokenizer = Tokenizer::parse(byte_level_file().dump(), "test.json");
    std::string text;
    for (int i = 0; i < 2000; ++i) text += "the there 漢 " + std::to_string(i);
    const auto expected = tokenizer.encode(text, false);
    std::array<Ids, 4> got;
    {
        std::vector<std::jthread> threads;
        for (auto& ids : got) threads.emplace_back([&] { ids = tokenizer.encode(text, false); });
    }
    for (const auto& ids : got) EXPECT_EQ(ids, expected);
}

TEST(Tokenizer, EmptyInputGivesEmptyOutput) {
    EXPECT_TRUE(make(ascii_model()).encode("", true).empty());
    EXPECT_TRUE(make(bpe_model({})).encode("abc", true).empty());
    EXPECT_EQ(make(bpe_model({})).vocab_size(), 0u);
    EXPECT_EQ(make(ascii_model()).decode({}, true), "");
}

}  // namespace
}  // namespace mha2mla::test
