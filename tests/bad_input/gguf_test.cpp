// Damaged and lying GGUF files end with a message that names file and key or tensor.
#include <cmath>
#include <cstring>

#include "mha2mla/gguf.hpp"
#include "mha2mla/gguf_import.hpp"
#include "support/expect_error.hpp"
#include "support/shared.hpp"
#include "support/temporary.hpp"

namespace mha2mla::test {
namespace {

/// Builds the bytes of a file by hand.
struct Bytes {
    std::string text;

    template <typename Number>
    Bytes& put(Number number) {
        text.append(reinterpret_cast<const char*>(&number), sizeof(number));
        return *this;
    }
    Bytes& str(std::string_view value) {
        put<std::uint64_t>(value.size());
        text.append(value);
        return *this;
    }
    Bytes& head(std::uint64_t tensors, std::uint64_t keys, std::uint32_t version = 3) {
        text = "GGUF";
        return put(version).put(tensors).put(keys);
    }
    /// A tensor of F32 unless `type` says otherwise.
    Bytes& tensor(std::string_view name, const std::vector<std::int64_t>& sizes, std::uint64_t offset,
                  std::uint32_t type = 0) {
        str(name).put(static_cast<std::uint32_t>(sizes.size()));
        for (const auto size : sizes) put(size);
        return put(type).put(offset);
    }
    /// Pads to the data and adds `bytes` of it.
    Bytes& data(std::size_t bytes) {
        text.resize((text.size() + 31) / 32 * 32 + bytes);
        return *this;
    }
};
constexpr std::uint32_t kU32 = 4, kText = 8, kArray = 9;

GgufContent parse(const Bytes& bytes) { return parse_gguf(std::as_bytes(std::span(bytes.text)), "file.gguf"); }
void refuse(const Bytes& bytes, const std::vector<std::string_view>& needles, ErrorCode code = ErrorCode::format) {
    std::vector<std::string_view> all = needles;
    all.emplace_back("file.gguf");
    expect_error(code, all, [&] { (void)parse(bytes); });
}

Bytes valid() {
    Bytes bytes;
    bytes.head(2, 3).str("a.number").put(kU32).put<std::uint32_t>(7);
    bytes.str("a.text").put(kText).str("hello");
    bytes.str("texts").put(kArray).put(kText).put<std::uint64_t>(2).str("x").str("");
    bytes.tensor("one", {4, 2}, 0).tensor("two", {32}, 32, 8);
    return bytes.data(32 + 34);
}

TEST(BadGguf, AValidFileIsRead) {
    const Bytes bytes = valid();
    const GgufContent content = parse(bytes);
    ASSERT_EQ(content.tensors.size(), 2U);
    EXPECT_EQ(content.tensors[0].shape, (std::vector<std::int64_t>{2, 4}));
    EXPECT_EQ(content.tensors[1].data.size(), 34U);
    const TemporaryDirectory directory;
    write_text(directory / "file.gguf", bytes.text);
    const GgufFile file(directory / "file.gguf");
    EXPECT_EQ(file.integer("a.number"), 7);
    EXPECT_EQ(file.text("a.text"), "hello");
    EXPECT_EQ(file.texts("texts"), (std::vector<std::string_view>{"x", ""}));
    EXPECT_EQ(file.integer("absent"), std::nullopt);
    expect_error(ErrorCode::format, {"file.gguf", "a.text", "whole number"}, [&] { (void)file.integer("a.text"); });
    expect_error(ErrorCode::format, {"texts", "not an array"}, [&] { (void)file.text("texts"); });
}

TEST(BadGguf, EveryBeginningOfAFileIsRefused) {
    const Bytes whole = valid();
    for (std::size_t size = 0; size < whole.text.size(); ++size) {
        refuse({whole.text.substr(0, size)}, {});
    }
}

TEST(BadGguf, NoByteCanBeChangedToWhatCrashes) {
    const Bytes whole = valid();
    for (std::size_t at = 0; at < whole.text.size(); ++at) {
        for (const int value : {0x00, 0x01, 0x7F, 0x80, 0xFF}) {
            Bytes changed = whole;
            changed.text[at] = static_cast<char>(value);
            try {
                (void)parse(changed);
            } catch (const Error& error) {
                EXPECT_NE(std::string(error.what()).find("file.gguf"), std::string::npos);
            }
        }
    }
}

TEST(BadGguf, OtherFilesAndVersions) {
    refuse({"PK\3\4 some other file, long enough"}, {"not a GGUF file"});
    refuse(Bytes().head(0, 0, 1), {"version 1", "2 and 3"}, ErrorCode::unsupported);
    refuse(Bytes().head(0, 0, 0x03000000), {"big-endian"}, ErrorCode::unsupported);
}

TEST(BadGguf, CountsAndLengthsBeyondTheFile) {
    constexpr auto kHuge = std::uint64_t{1} << 63U;
    refuse(Bytes().head(kHuge, 0), {"tensors", "more than the file holds"});
    refuse(Bytes().head(0, kHuge), {"keys", "more than the file holds"});
    Bytes name;
    name.head(0, 1).put(kHuge).data(64);
    refuse(name, {"key 0", "beyond the end"});
    Bytes text;
    text.head(0, 1).str("general.name").put(kText).put(kHuge).data(64);
    refuse(text, {"'general.name'", "beyond the end"});
    Bytes array;
    array.head(0, 1).str("list").put(kArray).put(kU32).put(kHuge).data(64);
    refuse(array, {"'list'", "elements"});
}

TEST(BadGguf, KeysTwiceUnknownTypesAndDeepArrays) {
    Bytes twice;
    twice.head(0, 2);
    for (int i = 0; i < 2; ++i) twice.str("general.name").put(kU32).put<std::uint32_t>(1);
    refuse(twice.data(0), {"'general.name'", "twice"});
    Bytes unknown;
    unknown.head(0, 1).str("key").put<std::uint32_t>(13).data(32);
    refuse(unknown, {"'key'", "unknown type, 13"});
    Bytes deep;
    deep.head(0, 1).str("key");
    deep.put(kArray);
    for (int i = 0; i < 8; ++i) deep.put(kArray).put<std::uint64_t>(1);
    refuse(deep.data(64), {"'key'", "deeply"});
    Bytes alignment;
    alignment.head(0, 1).str("general.alignment").put(kU32).put<std::uint32_t>(48).data(32);
    refuse(alignment, {"'general.alignment'", "power of two"});
}

TEST(BadGguf, TensorsThatDoNotFit) {
    refuse(Bytes().head(1, 0).tensor("t", {}, 0).data(32), {"'t'", "dimensions"});
    refuse(Bytes().head(1, 0).tensor("t", {1, 1, 1, 1, 1}, 0).data(32), {"'t'", "dimensions"});
    refuse(Bytes().head(1, 0).tensor("t", {0, 4}, 0).data(32), {"'t'", "dimension of 0"});
    refuse(Bytes().head(1, 0).tensor("t", {-1}, 0).data(32), {"'t'", "dimension of -1"});
    constexpr std::int64_t kWide = std::int64_t{1} << 40;
    refuse(Bytes().head(1, 0).tensor("t", {kWide, kWide}, 0).data(32), {"'t'", "dimension"});
    refuse(Bytes().head(1, 0).tensor("t", {kWide}, 0).data(32), {"'t'", "beyond the end"});
    refuse(Bytes().head(1, 0).tensor("t", {4}, ~std::uint64_t{31}).data(32), {"'t'", "beyond the end"});
    refuse(Bytes().head(1, 0).tensor("t", {4}, 8).data(32), {"'t'", "multiple of 32"});
    refuse(Bytes().head(1, 0).tensor("t", {33}, 0, 8).data(64), {"'t'", "rows of 33", "q8_0"});
    refuse(Bytes().head(1, 0).tensor("t", {256}, 0, 10).data(128), {"'t'", "type 10", "q4_k"}, ErrorCode::unsupported);
    refuse(Bytes().head(2, 0).tensor("t", {4}, 0).tensor("t", {4}, 32).data(64), {"'t'", "twice"});
    refuse(Bytes().head(2, 0).tensor("t", {16}, 0).tensor("u", {4}, 32).data(64), {"'t'", "'u'", "overlap"});
}

TEST(BadGguf, AnArchitectureThatIsNotKnownIsNamed) {
    const TemporaryDirectory directory;
    Bytes bytes;
    bytes.head(0, 1).str("general.architecture").put(kText).str("mamba").data(0);
    write_text(directory / "file.gguf", bytes.text);
    Observer observer;
    expect_error(ErrorCode::unsupported, {"file.gguf", "mamba", "llama, qwen2"},
                 [&] { (void)import_gguf(directory / "file.gguf", directory / "out", {}, observer); });
    EXPECT_FALSE(std::filesystem::exists(directory / "out"));
    bytes.head(0, 1).str("general.architecture").put(kText).str("llama").data(0);
    write_text(directory / "file.gguf", bytes.text);
    expect_error(ErrorCode::format, {"llama.embedding_length", "missing"},
                 [&] { (void)import_gguf(directory / "file.gguf", directory / "out", {}, observer); });
}

/// A model's sizes as keys, and its embeddings.
Bytes sizes(std::uint32_t layers, std::uint32_t head_dim, float eps) {
    constexpr std::uint32_t kF32 = 6;
    Bytes bytes;
    bytes.head(1, 8).str("general.architecture").put(kText).str("gemma3");
    const std::pair<const char*, std::uint32_t> numbers[] = {
        {"embedding_length", 8},     {"feed_forward_length", 8},         {"block_count", layers},
        {"attention.head_count", 2}, {"attention.key_length", head_dim}, {"attention.sliding_window", 4}};
    for (const auto& [key, value] : numbers) bytes.str(std::string("gemma3.") + key).put(kU32).put(value);
    bytes.str("gemma3.attention.layer_norm_rms_epsilon").put(kF32).put(eps);
    return bytes.tensor("token_embd.weight", {8, 4}, 0).data(128);
}

TEST(BadGguf, SizesThatNoModelHasAreRefusedBeforeAnythingIsMadeOfThem) {
    const TemporaryDirectory directory;
    Observer observer;
    const auto refused = [&](const Bytes& bytes, const std::vector<std::string_view>& needles) {
        write_text(directory / "file.gguf", bytes.text);
        expect_error(ErrorCode::format, needles,
                     [&] { (void)import_gguf(directory / "file.gguf", directory / "out", {}, observer); });
        EXPECT_FALSE(std::filesystem::exists(directory / "out"));
    };
    refused(sizes(1U << 28U, 4, 1e-6F), {"gemma3.block_count", "out of range"});
    refused(sizes(1, 4, std::nanf("")), {"layer_norm_rms_epsilon", "not finite"});
    refused(sizes(1, 4, -1.0F), {"rms_norm_eps"});
}

}  // namespace
}  // namespace mha2mla::test
