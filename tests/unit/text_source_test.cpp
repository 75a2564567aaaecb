// Texts as people have them: packed, as JSON Lines, long; and no more of them is read than is needed.
#include "mha2mla/text_source.hpp"

#include <zlib.h>
#include <zstd.h>

#include <chrono>

#include "mha2mla/tokenizer.hpp"
#include "support/expect_error.hpp"
#include "support/shared.hpp"
#include "support/temporary.hpp"
#include "tokenizer/text_reader.hpp"

namespace mha2mla::test {
namespace {

namespace fs = std::filesystem;

std::string gzip(std::string_view text) {
    z_stream stream{};
    EXPECT_EQ(::deflateInit2(&stream, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
    std::string packed(::deflateBound(&stream, text.size()), '\0');
    stream.next_in = reinterpret_cast<z_const Bytef*>(const_cast<char*>(text.data()));
    stream.avail_in = static_cast<uInt>(text.size());
    stream.next_out = reinterpret_cast<Bytef*>(packed.data());
    stream.avail_out = static_cast<uInt>(packed.size());
    EXPECT_EQ(::deflate(&stream, Z_FINISH), Z_STREAM_END);
    packed.resize(stream.total_out);
    ::deflateEnd(&stream);
    return packed;
}

std::string zstd(std::string_view text) {
    std::string packed(::ZSTD_compressBound(text.size()), '\0');
    packed.resize(::ZSTD_compress(packed.data(), packed.size(), text.data(), text.size(), 3));
    return packed;
}

using Pack = std::string (*)(std::string_view);
constexpr Pack kPacks[] = {gzip, zstd};

class Texts : public testing::Test {
protected:
    [[nodiscard]] fs::path file(std::string_view content, const std::string& name = "text") const {
        write_text(directory_ / name, content);
        return directory_ / name;
    }
    [[nodiscard]] std::vector<TokenId> tokens(const fs::path& text, std::optional<std::int64_t> most = std::nullopt,
                                              const std::string& field = "") const {
        TextSource source;
        source.text = text;
        source.field = field;
        return load_tokens(source, model_, most);
    }
    [[nodiscard]] std::vector<TokenId> encoded(const std::string& text) const { return tokenizer_.encode(text, false); }

    TemporaryDirectory directory_;
    Model model_ = Model::open(example("kjv-1.8M"));
    Tokenizer tokenizer_ = Tokenizer::load(example("kjv-1.8M") / "tokenizer.json");
    std::string text_ = read_text(example("kjv-eval.txt"));
};

TEST_F(Texts, PackedOnesAreUnpacked) {
    const auto expected = encoded(text_);
    for (const Pack pack : kPacks) {
        EXPECT_EQ(tokens(file(pack(text_))), expected);
        EXPECT_EQ(tokens(file(pack("\xef\xbb\xbf" + text_))), expected) << "the byte order mark is no part of it";
        const std::size_t half = text_.size() / 2;
        EXPECT_EQ(tokens(file(pack(text_.substr(0, half)) + pack(text_.substr(half)))), expected) << "two in one file";
        EXPECT_TRUE(tokens(file(pack(""))).empty());
    }
    EXPECT_EQ(tokens(file(gzip(text_) + std::string(512, '\0'))), expected) << "as tape drives fill up";
}

TEST_F(Texts, DamagedOnesAreErrors) {
    for (const Pack pack : kPacks) {
        const std::string packed = pack(text_);
        for (const std::size_t size : {std::size_t{4}, std::size_t{20}, packed.size() / 2, packed.size() - 1}) {
            SCOPED_TRACE(size);
            expect_error(ErrorCode::format, {"text", "ends early"},
                         [&] { (void)tokens(file(packed.substr(0, size))); });
        }
        std::string damaged = packed;
        damaged[packed.size() / 2] ^= 0x55;
        damaged[packed.size() / 2 + 1] ^= 0x55;
        expect_error(ErrorCode::format, {"text"}, [&] { (void)tokens(file(damaged)); });
        expect_error(ErrorCode::unsupported, {"twice"}, [&] { (void)tokens(file(pack(packed))); });
        expect_error(ErrorCode::unsupported, {"UTF-16", "iconv"}, [&] {
            (void)tokens(
                file(pack("\xff\xfe"
                          "a")));
        });
    }
    expect_error(ErrorCode::unsupported, {"git lfs pull"},
                 [&] { (void)tokens(file("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")); });
}

TEST_F(Texts, ASmallFileMayNotBecomeAHugeText) {
    const std::string zeros(120'000'000, 'a');
    for (const Pack pack : kPacks) {
        const std::string packed = pack(zeros);
        ASSERT_LT(packed.size(), 1'000'000U);
        expect_error(ErrorCode::format, {"200 times"}, [&] { (void)tokens(file(packed)); });
        EXPECT_EQ(tokens(file(packed), 10).size(), 10U) << "its beginning can be read";
    }
}

TEST_F(Texts, OfALongTextTheFirstTokensAreThoseOfTheWhole) {
    std::string text;
    while (text.size() < 1'000'000) text += text_;
    const auto whole = encoded(text);
    const fs::path plain = file(text), packed = file(gzip(text), "packed");
    for (const std::int64_t most : {0, 1, 100, 4097, 20'000, 100'000}) {
        const std::vector<TokenId> expected(whole.begin(), whole.begin() + most);
        EXPECT_EQ(tokens(plain, most), expected) << most;
        EXPECT_EQ(tokens(packed, most), expected) << most;
    }
    EXPECT_EQ(tokens(plain, std::ssize(whole) + 5), whole);
    EXPECT_EQ(tokens(plain, std::ssize(whole) - 1).size(), whole.size() - 1);
    const std::string one_word(500'000, 'x');
    const auto of_word = encoded(one_word);
    EXPECT_EQ(tokens(file(one_word), 50), std::vector<TokenId>(of_word.begin(), of_word.begin() + 50));
}

TEST_F(Texts, OfAHugeTextLittleIsRead) {
    const fs::path huge = directory_ / "huge";
    write_text(huge, text_);
    fs::resize_file(huge, std::uintmax_t{8} << 30U);  // zeros behind it, which would take minutes
    const auto start = std::chrono::steady_clock::now();
    const auto beginning = encoded(text_);
    EXPECT_EQ(tokens(huge, 256), std::vector<TokenId>(beginning.begin(), beginning.begin() + 256));
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(5));
    expect_error(ErrorCode::unsupported, {"1 GiB"}, [&] { (void)tokens(huge); });
}

TEST_F(Texts, JsonLinesAreReadByTheirField) {
    const std::string lines = "{\"text\": \"In the beginning\", \"id\": 1}\r\n\n{\"id\": 2, \"text\": \"God created\"}";
    auto expected = encoded("In the beginning");
    const auto second = encoded("God created");
    expected.insert(expected.end(), second.begin(), second.end());
    for (const char* name : {"a.jsonl", "a.ndjson", "no-name-of-that-kind", "a.json"}) {
        EXPECT_EQ(tokens(file(lines, name)), expected) << name;
        EXPECT_EQ(tokens(file(lines, name), 3), std::vector<TokenId>(expected.begin(), expected.begin() + 3));
    }
    EXPECT_EQ(tokens(file(gzip(lines), "a.jsonl.gz")), expected);
    EXPECT_EQ(tokens(file(zstd(lines), "piped")), expected);
    const std::string other = "{\"content\": \"In the beginning\", \"n\": 1}\n{\"content\": \"God created\"}\n";
    EXPECT_EQ(tokens(file(other), std::nullopt, "content"), expected);
    EXPECT_EQ(tokens(file(other)), encoded(other)) << "no text is known in it, so it is a text itself";
    expect_error(ErrorCode::format, {"line 1", "'text'", "'content'"}, [&] { (void)tokens(file(other, "a.jsonl")); });
    expect_error(ErrorCode::format, {"line 2", "'text'"},
                 [&] { (void)tokens(file("{\"text\": \"a\"}\n{\"text\": 5}\n", "a.jsonl")); });
    for (const std::string line : {"5", "[1]", "{\"text\": \"a\"", "null", "{\"text\": \"\xff\"}"}) {
        expect_error(ErrorCode::format, {"line 2"},
                     [&] { (void)tokens(file("{\"text\": \"a\"}\n" + line + "\n", "a.jsonl")); });
    }
    expect_error(ErrorCode::format, {"line 1", "no JSON"}, [&] { (void)tokens(file(text_), std::nullopt, "text"); });
    EXPECT_TRUE(tokens(file("", "a.jsonl")).empty());
}

TEST_F(Texts, NestingAndLongLinesAreBounded) {
    const std::string deep(1'000'000, '[');
    expect_error(ErrorCode::format, {"line 1"}, [&] { (void)tokens(file("{\"text\": " + deep, "a.jsonl")); });
    const std::string closed = deep + std::string(deep.size(), ']');
    expect_error(ErrorCode::format, {"line 1"}, [&] { (void)tokens(file(closed, "a.jsonl")); });
    std::string document = "{\"text\": \"";
    while (document.size() < 3'000'000) document += "and the earth was without form ";
    for (const Pack pack : kPacks) {
        const fs::path packed = file(pack(document + "\"}\n{\"text\": \"a\"}\n"), "long.jsonl");
        EXPECT_EQ(tokens(packed, 1000).size(), 1000U);
        EXPECT_GT(tokens(packed).size(), 500'000U);
    }
}

TEST_F(Texts, LinesOfPackedTextsAreWholeAcrossBlocks) {
    std::string lines;
    for (int i = 0; lines.size() < 5'000'000; ++i) {
        const std::string word(static_cast<std::size_t>(i * 977 % 4001), static_cast<char>('a' + i % 26));
        lines += "{\"text\": \"" + word + "\"}\n";
    }
    const auto plain = tokens(file(lines, "a.jsonl"));
    for (const Pack pack : kPacks) EXPECT_EQ(tokens(file(pack(lines), "b.jsonl")), plain);
}

}  // namespace
}  // namespace mha2mla::test
