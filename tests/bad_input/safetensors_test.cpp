// Every rule of the safetensors format, with a file that violates it, and valid files, which are accepted.

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <exception>
#include <map>
#include <ostream>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "mha2mla/checkpoint.hpp"
#include "support/expect_error.hpp"
#include "support/safetensors_bytes.hpp"

namespace mha2mla::test {
namespace {

using namespace std::string_literals;

SafetensorsHeader check(std::string_view file) { return validate(bytes_of(file), "x.safetensors"); }

/// `"name":{...}` of an F32 vector in bytes [begin, end).
std::string f32(const std::string& name, std::uint64_t begin, std::uint64_t end) {
    return "\"" + name + R"(":{"dtype":"F32","shape":[)" + std::to_string((end - begin) / 4) + R"(],"data_offsets":[)" +
           std::to_string(begin) + "," + std::to_string(end) + "]}";
}

/// A header whose one tensor 'a' has this dtype, shape and these offsets, as JSON.
std::string entry(const std::string& dtype, const std::string& shape, const std::string& offsets) {
    return R"({"a":{"dtype":)" + dtype + R"(,"shape":)" + shape + R"(,"data_offsets":)" + offsets + "}}";
}

std::string repeat(std::string_view text, int times) {
    std::string out;
    for (int i = 0; i < times; ++i) out += text;
    return out;
}

struct BadHeader {
    const char* name;
    std::string header;
    std::size_t data_bytes;
    std::vector<std::string_view> needles;
};

void PrintTo(const BadHeader& bad, std::ostream* out) { *out << bad.name; }

class BadSafetensorsHeader : public testing::TestWithParam<BadHeader> {};

TEST_P(BadSafetensorsHeader, IsRefused) {
    const BadHeader& bad = GetParam();
    const std::string file = safetensors_bytes(bad.header, std::string(bad.data_bytes, '\0'));
    std::vector<std::string_view> needles = bad.needles;
    needles.emplace_back("x.safetensors");
    expect_error(ErrorCode::format, needles, [&] { (void)check(file); });
}

const std::vector<BadHeader> kNotTheObject = {
    {"Empty", "", 0, {"'{'"}},
    {"Array", "[]", 0, {"'{'"}},
    {"Null", "null", 0, {"'{'"}},
    {"SpaceFirst", " {}", 0, {"'{'"}},
    {"ByteOrderMarkFirst", "\xef\xbb\xbf{}", 0, {"'{'"}},
    {"CutInTheMiddle", R"({"a":{"dtype":"F32")", 0, {"JSON", "byte"}},
    {"TrailingComma", "{" + f32("a", 0, 4) + ",}", 4, {"JSON"}},
    {"SingleQuotes", "{'a':{}}", 0, {"JSON"}},
    {"Comment", "{/* no */}", 0, {"JSON"}},
    {"JunkBehind", "{}x", 0, {"JSON"}},
    {"SecondObjectBehind", "{}{}", 0, {"JSON"}},
    // A C string would end here; a header does not.
    {"JunkBehindNul", "{}\0x"s, 0, {"JSON"}},
    {"NulPadding", "{}\0\0\0\0\0\0"s, 0, {"JSON"}},
    {"InvalidUtf8", "{\"a\xff\":" + f32("a", 0, 4).substr(4) + "}", 4, {"UTF-8"}},
    {"OverlongUtf8", "{\"\xc0\xaf\":" + f32("a", 0, 4).substr(4) + "}", 4, {"UTF-8"}},
    {"LoneSurrogate", R"({"\ud800":)" + f32("a", 0, 4).substr(4) + "}", 4, {"JSON"}},
    {"InvalidUtf8InMetadata", "{\"__metadata__\":{\"k\":\"\xfe\"}}", 0, {"UTF-8"}},
};

const std::vector<BadHeader> kEntries = {
    {"EntryNull", R"({"a":null})", 0, {"'a'"}},
    {"EntryString", R"({"a":"F32"})", 0, {"'a'"}},
    {"EntryArray", R"({"a":[]})", 0, {"'a'"}},
    {"EntryNumber", R"({"a":0})", 0, {"'a'"}},
    {"EntryEmpty", R"({"a":{}})", 0, {"'a'", "dtype", "shape", "data_offsets"}},
    {"NoDtype", R"({"a":{"shape":[1],"data_offsets":[0,4]}})", 4, {"'a'", "dtype"}},
    {"NoShape", R"({"a":{"dtype":"F32","data_offsets":[0,4]}})", 4, {"'a'", "shape"}},
    {"NoOffsets", R"({"a":{"dtype":"F32","shape":[1]}})", 4, {"'a'", "data_offsets"}},
    {"UnknownKey", R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"strides":[1]}})", 4, {"'a'", "'strides'"}},
    {"DtypeTwice", R"({"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 4, {"'a'", "'dtype'"}},
    {"ShapeTwice", R"({"a":{"dtype":"F32","shape":[1],"shape":[1],"data_offsets":[0,4]}})", 4, {"'a'", "'shape'"}},
    {"OffsetsTwice",
     R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"data_offsets":[0,4]}})",
     4,
     {"'a'", "'data_offsets'"}},
    {"NameTwice", "{" + f32("a", 0, 4) + "," + f32("a", 4, 8) + "}", 8, {"'a'", "twice"}},
    {"NameTwiceOnceEscaped", "{" + f32("a", 0, 4) + "," + f32("\\u0061", 4, 8) + "}", 8, {"'a'", "twice"}},
    {"UnknownDtype", entry(R"("F128")", "[1]", "[0,16]"), 16, {"'a'", "'F128'"}},
    {"LowerCaseDtype", entry(R"("f32")", "[1]", "[0,4]"), 4, {"'a'", "'f32'"}},
    {"DtypeNumber", entry("32", "[1]", "[0,4]"), 4, {"'a'"}},
    {"DtypeNull", entry("null", "[1]", "[0,4]"), 4, {"'a'"}},
    {"DtypeArray", entry(R"(["F32"])", "[1]", "[0,4]"), 4, {"'a'"}},
    // Names and values come from files, so they must not add line breaks to the message.
    {"NameWithLineBreak", R"({"a\nb":{"dtype":"F32","shape":[1],"data_offsets":[0,8]}})", 8, {"b"}},
    {"DtypeWithLineBreak", entry(R"("F\r\n32")", "[1]", "[0,4]"), 4, {"'a'"}},
    {"KeyWithLineBreak", R"({"a":{"x\ny":1}})", 0, {"'a'"}},
};

const std::vector<BadHeader> kShapes = {
    {"Null", entry(R"("F32")", "null", "[0,4]"), 4, {"'a'"}},
    {"Number", entry(R"("F32")", "1", "[0,4]"), 4, {"'a'"}},
    {"Negative", entry(R"("F32")", "[-1]", "[0,4]"), 4, {"'a'", "negative"}},
    {"TwoNegatives", entry(R"("F32")", "[-1,-1]", "[0,4]"), 4, {"'a'", "negative"}},
    {"Fraction", entry(R"("F32")", "[1.5]", "[0,4]"), 4, {"'a'", "whole"}},
    {"WholeButFloat", entry(R"("F32")", "[1.0]", "[0,4]"), 4, {"'a'"}},
    {"Exponent", entry(R"("F32")", "[1e0]", "[0,4]"), 4, {"'a'"}},
    {"InfiniteExponent", entry(R"("F32")", "[1e999]", "[0,4]"), 4, {}},
    {"String", entry(R"("F32")", R"(["1"])", "[0,4]"), 4, {"'a'"}},
    {"Boolean", entry(R"("F32")", "[true]", "[0,4]"), 4, {"'a'"}},
    {"Nested", entry(R"("F32")", "[[1]]", "[0,4]"), 4, {"'a'"}},
    {"Past63Bits", entry(R"("U8")", "[9223372036854775808]", "[0,4]"), 4, {"'a'", "too many"}},
    {"Past64Bits", entry(R"("U8")", "[18446744073709551616]", "[0,4]"), 4, {"'a'"}},
    // The product is 2^64, which is 0 if it wraps: the tensor would look empty.
    {"ProductWrapsToZero", entry(R"("U8")", "[4294967296,4294967296]", "[0,0]"), 0, {"'a'", "too many"}},
    // 2^62 elements fit, their bytes do not.
    {"BytesWrapToZero", entry(R"("F32")", "[4611686018427387904]", "[0,0]"), 0, {"'a'", "too many"}},
    {"DimensionsWithoutEnd", entry(R"("U8")", "[1" + repeat(",1", 64) + "]", "[0,1]"), 1, {"'a'", "64 dimensions"}},
};

const std::vector<BadHeader> kOffsets = {
    {"One", entry(R"("F32")", "[1]", "[0]"), 4, {"'a'", "data_offsets", "two"}},
    {"Three", entry(R"("F32")", "[1]", "[0,4,4]"), 4, {"'a'", "data_offsets", "two"}},
    {"None", entry(R"("F32")", "[1]", "[]"), 4, {"'a'", "data_offsets", "two"}},
    {"Object", entry(R"("F32")", "[1]", R"({"begin":0,"end":4})"), 4, {"'a'"}},
    {"Strings", entry(R"("F32")", "[1]", R"(["0","4"])"), 4, {"'a'"}},
    {"Negative", entry(R"("F32")", "[1]", "[-4,0]"), 4, {"'a'", "negative"}},
    {"Float", entry(R"("F32")", "[1]", "[0.0,4.0]"), 4, {"'a'"}},
    {"Backwards", entry(R"("F32")", "[1]", "[4,0]"), 4, {"'a'", "[4, 0)", "backwards"}},
    {"BackwardsByWrapping", entry(R"("F32")", "[1]", "[18446744073709551612,0]"), 4, {"'a'", "backwards"}},
    {"TooFewForShape", entry(R"("F32")", "[2,3]", "[0,20]"), 20, {"'a'", "[2, 3]", "24", "20"}},
    {"TooManyForShape", entry(R"("F32")", "[2,3]", "[0,28]"), 28, {"'a'", "[2, 3]", "24", "28"}},
    {"BytesOfAnEmptyTensor", entry(R"("F32")", "[0]", "[0,4]"), 4, {"'a'", "[0]"}},
    {"HalfAByte", entry(R"("F4")", "[3]", "[0,2]"), 2, {"'a'", "[3]", "F4", "whole bytes"}},
    {"HalfAByteOfSix", entry(R"("F6_E2M3")", "[3]", "[0,2]"), 2, {"'a'", "F6_E2M3", "whole bytes"}},
};

const std::vector<BadHeader> kTiling = {
    {"GapAtTheStart", "{" + f32("a", 4, 8) + "}", 8, {"'a'", "4 bytes", "no tensor"}},
    {"GapBetween", "{" + f32("a", 0, 4) + "," + f32("b", 12, 16) + "}", 16, {"'b'", "8 bytes", "no tensor"}},
    {"LeftOver", "{" + f32("a", 0, 4) + "}", 7, {"3 bytes", "no tensor"}},
    {"LeftOverWithoutTensors", "{}", 1, {"1 bytes", "no tensor"}},
    {"SameBytes", "{" + f32("a", 0, 4) + "," + f32("b", 0, 4) + "}", 4, {"'a'", "'b'", "overlap"}},
    {"PartlySameBytes", "{" + f32("a", 0, 8) + "," + f32("b", 4, 12) + "}", 12, {"'a'", "'b'", "overlap"}},
    {"Inside", "{" + f32("a", 0, 16) + "," + f32("b", 4, 8) + "}", 16, {"'a'", "'b'", "overlap"}},
    {"EmptyInside", "{" + f32("a", 0, 8) + "," + f32("b", 4, 4) + "}", 8, {"'a'", "'b'", "overlap"}},
    {"OverlapInReverseOrder", "{" + f32("b", 4, 12) + "," + f32("a", 0, 8) + "}", 12, {"'a'", "'b'", "overlap"}},
    {"PastTheEnd", "{" + f32("a", 0, 4) + "," + f32("b", 4, 12) + "}", 11, {"'b'", "truncated", "11 bytes"}},
    {"WhollyPastTheEnd", "{" + f32("a", 0, 4) + "," + f32("b", 4, 12) + "}", 4, {"'b'", "truncated"}},
    {"EmptyPastTheEnd", "{" + f32("a", 8, 8) + "}", 4, {"'a'"}},
    {"FarPastTheEnd", entry(R"("U8")", "[1152921504606846976]", "[0,1152921504606846976]"), 4, {"'a'", "truncated"}},
};

const std::vector<BadHeader> kMetadata = {
    {"Array", R"({"__metadata__":[]})", 0, {"__metadata__", "strings"}},
    {"String", R"({"__metadata__":"pt"})", 0, {"__metadata__", "strings"}},
    {"Number", R"({"__metadata__":{"n":1}})", 0, {"__metadata__", "strings"}},
    {"NegativeNumber", R"({"__metadata__":{"n":-1}})", 0, {"__metadata__", "strings"}},
    {"Null", R"({"__metadata__":{"n":null}})", 0, {"__metadata__", "strings"}},
    {"Boolean", R"({"__metadata__":{"n":true}})", 0, {"__metadata__", "strings"}},
    {"NestedObject", R"({"__metadata__":{"n":{"k":"v"}}})", 0, {"__metadata__", "strings"}},
    {"NestedArray", R"({"__metadata__":{"n":["v"]}})", 0, {"__metadata__", "strings"}},
    {"Tensor", R"({"__metadata__":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1, {"__metadata__", "strings"}},
    {"Twice", R"({"__metadata__":{},"__metadata__":{}})", 0, {"__metadata__", "twice"}},
    {"KeyTwice", R"({"__metadata__":{"k":"v","k":"w"}})", 0, {"__metadata__", "'k'", "twice"}},
};

// Nested so deeply that a recursive reader would run out of stack.
const std::vector<BadHeader> kNesting = {
    {"ArraysInShape", R"({"a":{"shape":)" + repeat("[", 1'000'000), 0, {"'a'"}},
    {"ArraysAsEntry", R"({"a":)" + repeat("[", 1'000'000), 0, {"'a'"}},
    {"ObjectsAsEntry", repeat(R"({"a":)", 300'000), 0, {"'a'"}},
    {"ObjectsInMetadata", R"({"__metadata__":)" + repeat(R"({"a":)", 300'000), 0, {"__metadata__"}},
};

const auto kRowName = [](const auto& row) { return row.param.name; };
INSTANTIATE_TEST_SUITE_P(Json, BadSafetensorsHeader, testing::ValuesIn(kNotTheObject), kRowName);
INSTANTIATE_TEST_SUITE_P(Entry, BadSafetensorsHeader, testing::ValuesIn(kEntries), kRowName);
INSTANTIATE_TEST_SUITE_P(Shape, BadSafetensorsHeader, testing::ValuesIn(kShapes), kRowName);
INSTANTIATE_TEST_SUITE_P(Offsets, BadSafetensorsHeader, testing::ValuesIn(kOffsets), kRowName);
INSTANTIATE_TEST_SUITE_P(Tiling, BadSafetensorsHeader, testing::ValuesIn(kTiling), kRowName);
INSTANTIATE_TEST_SUITE_P(Metadata, BadSafetensorsHeader, testing::ValuesIn(kMetadata), kRowName);
INSTANTIATE_TEST_SUITE_P(Nesting, BadSafetensorsHeader, testing::ValuesIn(kNesting), kRowName);

/// A file with a scalar, an empty tensor and metadata, which the tests below truncate and damage.
std::string valid_file() {
    return safetensors_bytes(
        R"({"__metadata__":{"format":"pt"},"w":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},)"
        R"("none":{"dtype":"BF16","shape":[0,7],"data_offsets":[24,24]},)"
        R"("s":{"dtype":"I64","shape":[],"data_offsets":[24,32]},)"
        R"("b":{"dtype":"BOOL","shape":[3],"data_offsets":[32,35]}}   )",
        "0123456789abcdef0123456789abcdef012");
}

TEST(BadSafetensorsFile, ShorterThanTheLengthField) {
    for (std::size_t size = 0; size < 8; ++size) {
        expect_error(ErrorCode::format, {"x.safetensors", std::to_string(size) + " bytes", "8-byte"},
                     [&] { (void)check(std::string(size, '\0')); });
    }
}

TEST(BadSafetensorsFile, HeaderLengthBeyondTheFileSaysTruncated) {
    for (const std::uint64_t length : {3U, 100U, 100'000'000U}) {
        expect_error(ErrorCode::format, {"x.safetensors", std::to_string(length), "truncated"},
                     [&] { (void)check(little_endian(length, 8) + "{}"); });
    }
}

TEST(BadSafetensorsFile, HeaderLengthBeyondTheLimitIsNotASafetensorsFile) {
    // The last two wrap around to a small number if 8 is added to them.
    for (const std::uint64_t length : {std::uint64_t{100'000'001}, UINT64_MAX - 7, UINT64_MAX}) {
        expect_error(ErrorCode::format, {"x.safetensors", std::to_string(length), "100,000,000"},
                     [&] { (void)check(little_endian(length, 8) + "{}"); });
    }
}

TEST(BadSafetensorsFile, OtherKindsOfFiles) {
    using namespace std::string_view_literals;
    for (const std::string_view file :
         {"PK\x03\x04\x14\0\0\0\x08\0 a pickled checkpoint"sv, "\x89PNG\r\n\x1a\n and so on"sv,
          "version https://git-lfs.github.com/spec/v1\noid sha256:0123"sv, "{\"model_type\":\"llama\"}"sv}) {
        expect_error(ErrorCode::format, {"x.safetensors", "not a safetensors file"}, [&] { (void)check(file); });
    }
}

TEST(BadSafetensorsFile, EveryTruncationSaysSo) {
    const std::string file = valid_file();
    ASSERT_NO_THROW((void)check(file));
    for (std::size_t size = 8; size < file.size(); ++size) {
        expect_error(ErrorCode::format, {"x.safetensors", "truncated"}, [&] { (void)check(file.substr(0, size)); });
    }
}

TEST(ValidSafetensors, ReportsWhatTheHeaderSays) {
    const SafetensorsHeader header = check(valid_file());
    ASSERT_EQ(header.entries.size(), 4U);
    EXPECT_EQ(header.data_start, valid_file().size() - 35);
    EXPECT_EQ(header.metadata, (std::map<std::string, std::string>{{"format", "pt"}}));
    const auto& scalar = header.entries[2];
    EXPECT_EQ(scalar.name, "s");
    EXPECT_EQ(scalar.dtype, Dtype::i64);
    EXPECT_EQ(scalar.shape, Shape{});
    EXPECT_EQ(scalar.begin, 24U);
    EXPECT_EQ(scalar.end, 32U);
}

TEST(ValidSafetensors, EntriesComeInTheOrderOfTheData) {
    const auto header = check(safetensors_bytes("{" + f32("z", 8, 12) + "," + f32("y", 0, 8) + "}", "0123456789ab"));
    ASSERT_EQ(header.entries.size(), 2U);
    EXPECT_EQ(header.entries[0].name, "y");
    EXPECT_EQ(header.entries[1].name, "z");
}

TEST(ValidSafetensors, MetadataMayBeMissingEmptyNullOrLast) {
    EXPECT_TRUE(check(safetensors_bytes("{}")).entries.empty());
    EXPECT_TRUE(check(safetensors_bytes(R"({"__metadata__":{}})")).metadata.empty());
    EXPECT_TRUE(check(safetensors_bytes(R"({"__metadata__":null})")).metadata.empty());
    const auto last = check(safetensors_bytes("{" + f32("a", 0, 4) + R"(,"__metadata__":{"":"é\n"}})", "0123"));
    EXPECT_EQ(last.metadata, (std::map<std::string, std::string>{{"", "é\n"}}));
    EXPECT_EQ(last.entries.size(), 1U);
}

TEST(ValidSafetensors, HeaderMayBePaddedWithSpaces) {
    EXPECT_NO_THROW((void)check(safetensors_bytes("{" + f32("a", 0, 4) + "}" + std::string(1000, ' '), "0123")));
}

TEST(ValidSafetensors, TensorsWithoutElementsMayLieAnywhere) {
    const std::string header = "{" + f32("first", 0, 0) + "," + f32("a", 0, 4) + "," + f32("x", 4, 4) + "," +
                               f32("y", 4, 4) + "," + f32("b", 4, 8) + "," + f32("last", 8, 8) + "}";
    EXPECT_EQ(check(safetensors_bytes(header, "01234567")).entries.size(), 6U);
    for (const char* shape : {"[0]", "[0,5]", "[5,0]", "[0,9223372036854775807,9223372036854775807]"}) {
        EXPECT_NO_THROW((void)check(safetensors_bytes(entry(R"("F32")", shape, "[0,0]")))) << shape;
    }
}

TEST(ValidSafetensors, SixtyFourDimensions) {
    const auto header = check(safetensors_bytes(entry(R"("U8")", "[1" + repeat(",1", 63) + "]", "[0,1]"), "0"));
    EXPECT_EQ(header.entries.at(0).shape.size(), 64U);
}

TEST(ValidSafetensors, NamesAreAnyUtf8) {
    const auto header =
        check(safetensors_bytes(R"({"Gewicht.größe \u00e9\ud83d\ude00":)" + f32("a", 0, 4).substr(4) + "}", "0123"));
    EXPECT_EQ(header.entries.at(0).name, "Gewicht.größe é😀");
}

TEST(ValidSafetensors, EveryDtypeHasTheSizeOfTheFormat) {
    struct Row {
        const char* name;
        unsigned bits;
    };
    constexpr std::array<Row, 20> kRows = {{{"BOOL", 8}, {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"U8", 8},
                                            {"I8", 8},   {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"I16", 16},
                                            {"U16", 16}, {"F16", 16},    {"BF16", 16},   {"I32", 32},    {"U32", 32},
                                            {"F32", 32}, {"C64", 64},    {"F64", 64},    {"I64", 64},    {"U64", 64}}};
    for (const Row& row : kRows) {
        SCOPED_TRACE(row.name);
        const std::size_t bytes = 5 * row.bits;  // of 5 x 8 elements
        const std::string name = "\"" + std::string(row.name) + "\"";
        const auto header = check(
            safetensors_bytes(entry(name, "[5,8]", "[0," + std::to_string(bytes) + "]"), std::string(bytes, '\0')));
        ASSERT_EQ(header.entries.size(), 1U);
        EXPECT_EQ(dtype_name(header.entries[0].dtype), row.name);
        EXPECT_EQ(dtype_bits(header.entries[0].dtype), row.bits);
    }
}

/// One random change, mostly in the header, which is most of the file.
void damage(std::string& file, std::mt19937& random) {
    const auto below = [&](std::size_t n) { return static_cast<std::size_t>(random()) % n; };
    if (file.empty()) return;
    const std::size_t at = below(file.size());
    switch (below(6)) {
        case 0:
            file.resize(at);
            break;
        case 1:
            file[at] = static_cast<char>(random());
            break;
        case 2:
            file[at] = static_cast<char>(file[at] ^ (1 << below(8)));
            break;
        case 3:
            file[at] = "0123456789\",:[]{}-.e\\n"[below(22)];
            break;
        case 4:
            file.erase(at, 1 + below(8));
            break;
        default:
            file.insert(at, file.substr(below(file.size()), 1 + below(60)));
            break;
    }
}

/// Checks the guarantees for callers: ranges are in order, inside the data, without gaps and overlaps, and fit the
/// shapes.
void expect_tiled(const SafetensorsHeader& header, const std::string& file) {
    std::uint64_t position = 0;
    for (const auto& tensor : header.entries) {
        EXPECT_EQ(tensor.begin, position) << file;
        EXPECT_EQ(tensor.end - tensor.begin, byte_count(tensor.dtype, tensor.shape)) << file;
        position = tensor.end;
    }
    EXPECT_EQ(header.data_start + position, file.size()) << file;
}

TEST(SafetensorsProperty, DamagedFilesAreRefusedOrTiled) {
    std::mt19937 random(20250131);
    int accepted = 0;
    int refused = 0;
    for (int i = 0; i < 5000; ++i) {
        std::string file = valid_file();
        const auto changes = 1 + random() % 2;
        for (unsigned change = 0; change < changes; ++change) damage(file, random);
        if (random() % 2 == 0 && file.size() > 8) {
            // Otherwise most insertions would be refused only because the length is wrong.
            const std::size_t header = std::min(file.size(), std::max<std::size_t>(file.rfind('}') + 4, 8)) - 8;
            file.replace(0, 8, little_endian(header, 8));
        }
        // An exact heap copy, so that a sanitizer sees the first byte read past the end.
        const std::vector<char> exact(file.begin(), file.end());
        try {
            expect_tiled(check({exact.data(), exact.size()}), file);
            ++accepted;
        } catch (const Error& error) {
            EXPECT_EQ(error.code(), ErrorCode::format) << error.what();
            EXPECT_EQ(std::string_view(error.what()).find_first_of("\n\r"), std::string_view::npos) << error.what();
            EXPECT_TRUE(std::string_view(error.what()).starts_with("x.safetensors: ")) << error.what();
            ++refused;
        } catch (const std::exception& error) {
            FAIL() << "not an Error: " << error.what() << " for " << testing::PrintToString(file);
        }
    }
    // Some damaged files must be accepted and some refused, otherwise the test shows nothing.
    EXPECT_GT(accepted, 200);
    EXPECT_GT(refused, 2000);
}

}  // namespace
}  // namespace mha2mla::test
