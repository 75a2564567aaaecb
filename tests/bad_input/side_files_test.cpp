// Rank files, statistics files and token files that are damaged, of another kind or of another model.

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mha2mla/calibration.hpp"
#include "mha2mla/rope.hpp"
#include "mha2mla/token_file.hpp"
#include "support/expect_error.hpp"
#include "support/safetensors_bytes.hpp"
#include "support/temporary.hpp"
#include "support/tiny_model.hpp"

namespace mha2mla::test {
namespace {

using namespace std::string_literals;
using ZipEntry = std::pair<std::string, std::string>;  // name and content

// --- rank files ------------------------------------------------------------------------------------------------------

std::uint32_t crc32(std::string_view data) {
    std::uint32_t crc = ~0U;
    for (const char byte : data) {
        crc ^= static_cast<unsigned char>(byte);
        for (int bit = 0; bit < 8; ++bit) crc = crc >> 1U ^ ((crc & 1U) != 0 ? 0xEDB88320U : 0U);
    }
    return ~crc;
}

/// A zip archive of uncompressed entries, as torch.save writes.
std::string zip_of(const std::vector<ZipEntry>& entries) {
    std::string archive;
    std::string directory;
    for (const auto& [name, content] : entries) {
        const std::string common = little_endian(20, 2) + std::string(8, '\0') + little_endian(crc32(content), 4) +
                                   little_endian(content.size(), 4) + little_endian(content.size(), 4) +
                                   little_endian(name.size(), 2) + std::string(2, '\0');
        directory += "PK\x01\x02" + little_endian(20, 2) + common + std::string(10, '\0') +
                     little_endian(archive.size(), 4) + name;
        archive += "PK\x03\x04" + common + name + content;
    }
    const std::string count = little_endian(entries.size(), 2);
    return archive + directory + "PK\x05\x06" + std::string(4, '\0') + count + count +
           little_endian(directory.size(), 4) + little_endian(archive.size(), 4) + std::string(2, '\0');
}

/// The pickle that torch.save writes for a uint8 tensor, byte for byte; tests change its parts by parameters.
struct Pickle {
    std::string storage_class = "ByteStorage";
    std::string elements = "K\x20";
    std::string offset = "K\0"s;
    std::string shape = "K\x02K\x02K\x08";
    std::string strides = "K\x10K\x08K\x01";
    std::string function = "torch._utils\n_rebuild_tensor_v2";
    std::string end = ".";

    [[nodiscard]] std::string bytes() const {
        return "\x80\x02"
               "c" +
               function +
               "\nq\0((X\x07\0\0\0storageq\x01"
               "ctorch\n"s +
               storage_class +
               "\nq\x02X\x01\0\0\0"
               "0q\x03X\x03\0\0\0cpuq\x04"s +
               elements + "tq\x05Q" + offset + shape + "\x87q\x06" + strides +
               "\x87q\x07\x89"
               "ccollections\nOrderedDict\nq\x08)Rq\ttq\nRq\x0b" +
               end;
    }
};

/// Two layers of two KV heads of four pairs; each half of a head the same.
const std::string kRanks =
    "\0\1\2\3\0\1\2\3"
    "\3\2\1\0\3\2\1\0"
    "\1\0\3\2\1\0\3\2"
    "\2\3\0\1\2\3\0\1"s;

std::vector<ZipEntry> rank_entries(const Pickle& pickle = {}, const std::string& ranks = kRanks) {
    return {{"archive/data.pkl", pickle.bytes()}, {"archive/data/0", ranks}, {"archive/version", "3\n"}};
}

void expect_rank_error(const std::string& file, std::vector<std::string_view> needles, int line = __builtin_LINE()) {
    const TemporaryDirectory root;
    write_text(root / "rank.pth", file);
    const std::string path = (root / "rank.pth").string();
    needles.emplace_back(path);
    expect_error(
        ErrorCode::format, needles, [&] { (void)read_rank_file(path); }, __FILE__, line);
}

TEST(BadRankFile, ValidOneReads) {
    const TemporaryDirectory root;
    write_text(root / "rank.pth", zip_of(rank_entries()));
    const PairRanks ranks = read_rank_file(root / "rank.pth");
    EXPECT_EQ(ranks.layers, 2);
    EXPECT_EQ(ranks.kv_heads, 2);
    EXPECT_EQ(ranks.head_dim, 8);
    EXPECT_EQ(std::string(ranks.values.begin(), ranks.values.end()), kRanks);
    EXPECT_EQ(ranks.rank(0, 1, 0), 3);
    EXPECT_EQ(ranks.rank(1, 0, 2), 3);
}

TEST(BadRankFile, Missing) {
    const TemporaryDirectory root;
    expect_error(ErrorCode::io, {(root / "none.pth").string()}, [&] { (void)read_rank_file(root / "none.pth"); });
    expect_error(ErrorCode::io, {root.path().string()}, [&] { (void)read_rank_file(root.path()); });
}

TEST(BadRankFile, NotAZip) {
    expect_rank_error("", {"zip", "torch.save"});
    expect_rank_error("not a zip at all", {"zip", "torch.save"});
    expect_rank_error(Pickle().bytes(), {"zip", "torch.save"});  // as torch.save wrote before version 1.6
    expect_rank_error(safetensors_bytes("{}"), {"zip"});
}

TEST(BadRankFile, EveryTruncationIsRefused) {
    const std::string file = zip_of(rank_entries());
    for (std::size_t size = 0; size < file.size(); size += 7) expect_rank_error(file.substr(0, size), {"rank file"});
    expect_rank_error(file.substr(0, file.size() - 1), {"rank file"});
}

TEST(BadRankFile, WithoutItsEntries) {
    expect_rank_error(zip_of({}), {"data.pkl"});
    expect_rank_error(zip_of({{"readme.txt", "hello"}}), {"data.pkl", "missing"});
    expect_rank_error(zip_of({{"data.pkl", Pickle().bytes()}, {"data/0", kRanks}}), {"data.pkl", "missing"});
    expect_rank_error(zip_of({{"archive/data.pkl", Pickle().bytes()}}), {"data/0", "missing"});
    expect_rank_error(zip_of({{"archive/data.pkl", Pickle().bytes()}, {"archive/.data/0", kRanks}}), {"data/0"});
}

TEST(RankFile, NumbersOfEightBytesAreTheSameRanks) {
    std::string wide;
    for (const char rank : kRanks) wide += rank + std::string(7, '\0');
    const TemporaryDirectory root;
    write_text(root / "rank.pth", zip_of(rank_entries({.storage_class = "LongStorage"}, wide)));
    const PairRanks ranks = read_rank_file(root / "rank.pth");
    EXPECT_EQ(std::string(ranks.values.begin(), ranks.values.end()), kRanks);
    wide[9] = 1;  // 256 and more
    expect_rank_error(zip_of(rank_entries({.storage_class = "LongStorage"}, wide)), {"0 to 255"});
}

TEST(BadRankFile, PicklesOfSomethingElse) {
    const auto expect_pickle_error = [](const std::string& pickle, int line = __builtin_LINE()) {
        expect_rank_error(zip_of({{"archive/data.pkl", pickle}, {"archive/data/0", kRanks}}),
                          {"data.pkl", "int64 tensor"}, line);
    };
    expect_pickle_error("");
    expect_pickle_error("\x80\x02}q\0."s);  // an empty dict
    expect_pickle_error(
        "\x80\x02"
        "cposix\nsystem\nX\x04\0\0\0true\x85R."s);  // a call
    expect_pickle_error(Pickle{.storage_class = "FloatStorage"}.bytes());
    expect_pickle_error(Pickle{.function = "os\nsystem"}.bytes());
    expect_pickle_error(Pickle{.offset = "K\x08"}.bytes());
    expect_pickle_error(Pickle{.shape = "K\x04K\x08"}.bytes());                       // two dimensions
    expect_pickle_error(Pickle{.strides = "K\x01K\x02K\x04"}.bytes());                // transposed
    expect_pickle_error(Pickle{.elements = "K\x40"}.bytes());                         // not what the shape needs
    expect_pickle_error(Pickle{.elements = "K\0"s, .shape = "K\0K\2K\10"s}.bytes());  // no layers
    expect_pickle_error(Pickle{.elements = "J\xe0\xff\xff\xff", .shape = "J\xfe\xff\xff\xffK\x02K\x08"}.bytes());
    expect_pickle_error(Pickle{.end = ""}.bytes());
    expect_pickle_error(Pickle{.end = ".trailing"}.bytes());
}

TEST(BadRankFile, EveryTruncatedPickleIsRefused) {
    const std::string pickle = Pickle().bytes();
    for (std::size_t size = 0; size < pickle.size(); size += 5) {
        expect_rank_error(zip_of({{"archive/data.pkl", pickle.substr(0, size)}, {"archive/data/0", kRanks}}),
                          {"data.pkl"});
    }
}

TEST(BadRankFile, ShapeWhoseProductOverflows) {
    // 2^31-1 cubed does not fit 64 bits; the message must still say which file it is.
    const std::string huge = "J\xff\xff\xff\x7f";
    expect_rank_error(zip_of(rank_entries({.shape = huge + huge + huge})), {"rank.pth"});
}

TEST(BadRankFile, StorageOfAnotherSize) {
    expect_rank_error(zip_of(rank_entries({}, kRanks.substr(8))), {"storage", "size"});
    expect_rank_error(zip_of(rank_entries({}, kRanks + kRanks)), {"storage", "size"});
    expect_rank_error(zip_of(rank_entries({}, "")), {"storage", "size"});
}

TEST(BadRankFile, StorageThatFailsItsChecksum) {
    // Still a permutation in both halves, so only the checksum shows the damage.
    std::string file = zip_of(rank_entries());
    const auto at = file.find(kRanks);
    ASSERT_NE(at, std::string::npos);
    for (const std::size_t half : {0U, 4U}) std::swap(file[at + half], file[at + half + 1]);
    expect_rank_error(file, {"data/0", "damaged"});
}

TEST(BadRankFile, RanksAreNotAPermutation) {
    const std::vector<std::pair<std::size_t, std::string_view>> heads = {
        {0, "layer 0, KV head 0"}, {8, "layer 0, KV head 1"}, {16, "layer 1, KV head 0"}, {24, "layer 1, KV head 1"}};
    for (const auto& [at, where] : heads) {
        for (const char* head : {"\1\1\2\3\1\1\2\3", "\1\2\3\4\1\2\3\4", "\1\2\3\xff\1\2\3\xff"}) {
            std::string ranks = kRanks;
            ranks.replace(at, 8, head, 8);
            expect_rank_error(zip_of(rank_entries({}, ranks)), {where, "permutation"});
        }
        std::string ranks = kRanks;
        std::swap(ranks[at], ranks[at + 1]);  // in the first half only
        expect_rank_error(zip_of(rank_entries({}, ranks)), {where, "halves"});
    }
}

TEST(BadRankFile, OddHeadDimension) {
    const Pickle odd{.elements = "K\x03", .shape = "K\x01K\x01K\x03", .strides = "K\x03K\x03K\x01"};
    expect_rank_error(zip_of(rank_entries(odd, "\0\1\0"s)), {"odd"});
}

TEST(BadRankFile, RanksOfAnotherModel) {
    const TemporaryDirectory root;
    write_text(root / "rank.pth", zip_of(rank_entries()));
    const PairRanks ranks = read_rank_file(root / "rank.pth");
    const RopeOptions options{"2-norm", 4, 0};
    const auto config_of = [&](const TinyModel& tiny) {
        write_text(root / "config.json", tiny_config(tiny).dump());
        return read_config(root / "config.json");
    };
    EXPECT_EQ(select_rope(config_of({}), options, &ranks).pairs[0][1], (std::vector<std::int64_t>{2, 3}));
    for (const TinyModel& other : {TinyModel{.layers = 3}, TinyModel{.kv_heads = 4}, TinyModel{.head_dim = 16}}) {
        const Shape want{other.layers, other.kv_heads, other.head_dim};
        expect_error(ErrorCode::usage, {"another model", "[2, 2, 8]", to_string(want)},
                     [&] { (void)select_rope(config_of(other), options, &ranks); });
    }
    expect_error(ErrorCode::usage, {"2-norm"}, [&] { (void)select_rope(config_of({}), options, nullptr); });
}

// --- statistics files ------------------------------------------------------------------------------------------------

/// Parts of a statistics file of two layers, four heads, two KV heads and four pairs, for tests to change.
struct Stats {
    std::string metadata = R"({"format":"mha2mla statistics 1","model":"m","data":"d","sequences":"2","seq_len":"16"})";
    std::string dtype = "F64";
    Shape query = {2, 4, 4}, key = {2, 2, 4};
    std::string query_name = "mean_query_norm", key_name = "mean_key_norm";
    double special = 1.0;  // the last norm of the keys

    [[nodiscard]] std::string bytes() const {
        const std::size_t width = dtype == "F64" ? 8 : 4;
        const auto query_bytes = width * element_count(query);
        const auto key_bytes = width * element_count(key);
        const auto entry = [&](const std::string& name, const Shape& shape, std::size_t begin, std::size_t end) {
            return ",\"" + name + R"(":{"dtype":")" + dtype + R"(","shape":)" + to_string(shape) +
                   R"(,"data_offsets":[)" + std::to_string(begin) + "," + std::to_string(end) + "]}";
        };
        std::string data(query_bytes + key_bytes, '\0');
        if (key_bytes >= 8) data.replace(data.size() - 8, 8, little_endian(std::bit_cast<std::uint64_t>(special), 8));
        return safetensors_bytes("{\"__metadata__\":" + metadata + entry(query_name, query, 0, query_bytes) +
                                     entry(key_name, key, query_bytes, query_bytes + key_bytes) + "}",
                                 data);
    }
};

void expect_stats_error(const Stats& stats, std::vector<std::string_view> needles, int line = __builtin_LINE()) {
    const TemporaryDirectory root;
    write_text(root / "stats.safetensors", stats.bytes());
    const std::string path = (root / "stats.safetensors").string();
    needles.emplace_back(path);
    expect_error(
        ErrorCode::format, needles, [&] { (void)load_stats(path); }, __FILE__, line);
}

TEST(BadStatsFile, ValidOneReads) {
    const TemporaryDirectory root;
    write_text(root / "s", Stats().bytes());
    const CalibrationStats stats = load_stats(root / "s");
    EXPECT_EQ((Shape{stats.layers, stats.heads, stats.kv_heads, stats.pairs}), (Shape{2, 4, 2, 4}));
    EXPECT_EQ(stats.mean_key_norm.back(), 1.0);
    EXPECT_EQ(stats.sequences, 2);
    EXPECT_EQ(stats.seq_len, 16);
    EXPECT_EQ(stats.model, "m");
}

TEST(BadStatsFile, OtherFiles) {
    const TemporaryDirectory root;
    expect_error(ErrorCode::io, {(root / "none").string()}, [&] { (void)load_stats(root / "none"); });
    write_text(root / "text", "hello, world");
    expect_error(ErrorCode::format, {(root / "text").string()}, [&] { (void)load_stats(root / "text"); });
    write_tiny_model(root.path());
    expect_error(ErrorCode::format, {"model.safetensors", "not a statistics file", "calibrate"},
                 [&] { (void)load_stats(root / "model.safetensors"); });
    expect_stats_error({.metadata = "null"}, {"not a statistics file"});
    expect_stats_error({.metadata = R"({"format":"mha2mla statistics 2"})"}, {"not a statistics file"});
}

TEST(BadStatsFile, MissingOrMisshapenTensors) {
    expect_stats_error({.query_name = "query"}, {"'mean_query_norm'", "F64", "calibrate"});
    expect_stats_error({.key_name = "key"}, {"'mean_key_norm'", "F64", "calibrate"});
    expect_stats_error({.dtype = "F32"}, {"'mean_query_norm'", "F64"});
    expect_stats_error({.query = {2, 16}}, {"'mean_query_norm'", "[layers, heads, pairs]"});
    expect_stats_error({.key = {16}}, {"'mean_key_norm'"});
    expect_stats_error({.key = {3, 2, 4}}, {"[2, 4, 4]", "[3, 2, 4]"});  // layers
    expect_stats_error({.key = {2, 2, 8}}, {"[2, 4, 4]", "[2, 2, 8]"});  // pairs
    expect_stats_error({.key = {2, 3, 4}}, {"[2, 4, 4]", "[2, 3, 4]"});  // 3 KV heads for 4 heads
    expect_stats_error({.key = {2, 0, 4}}, {"[2, 4, 4]", "[2, 0, 4]"});
}

TEST(BadStatsFile, NormsThatAreNegativeOrNotFinite) {
    for (const double value :
         {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity(), -1.0}) {
        expect_stats_error({.special = value}, {"'mean_key_norm'", "not finite", "calibrate"});
    }
}

TEST(BadStatsFile, MetadataThatAreNotNumbers) {
    for (const char* number : {"", "two", "-2", "2x", " 2", "1.5", "99999999999999999999"}) {
        SCOPED_TRACE(number);
        expect_stats_error({.metadata = R"({"format":"mha2mla statistics 1","seq_len":"16","sequences":")" +
                                        std::string(number) + "\"}"},
                           {"'sequences'", "number"});
    }
    expect_stats_error({.metadata = R"({"format":"mha2mla statistics 1","sequences":"2"})"}, {"'seq_len'"});
}

TEST(BadStatsFile, StatisticsOfAnotherModel) {
    const TemporaryDirectory root;
    write_text(root / "s", Stats().bytes());
    const CalibrationStats stats = load_stats(root / "s");
    for (const TinyModel& other :
         {TinyModel{.layers = 3}, TinyModel{.heads = 8}, TinyModel{.kv_heads = 4}, TinyModel{.head_dim = 16}}) {
        write_text(root / "config.json", tiny_config(other).dump());
        const ModelConfig config = read_config(root / "config.json");
        const Shape want{other.layers, other.heads, other.kv_heads, other.head_dim / 2};
        expect_error(ErrorCode::usage, {"my-stats", "another model", "[2, 4, 2, 4]", to_string(want)},
                     [&] { check_stats_fit(stats, config, "my-stats"); });
    }
    write_text(root / "config.json", tiny_config().dump());
    EXPECT_NO_THROW(check_stats_fit(stats, read_config(root / "config.json"), "my-stats"));
}

// --- token files -----------------------------------------------------------------------------------------------------

constexpr std::int64_t kVocab = 100;

void expect_token_error(const std::string& name, const std::string& content, std::vector<std::string_view> needles,
                        int line = __builtin_LINE()) {
    const TemporaryDirectory root;
    write_text(root / name, content);
    const std::string path = (root / name).string();
    const auto read = [&] { (void)read_token_file(path, TokenFormat::automatic, kVocab); };
    needles.emplace_back(path);
    expect_error(ErrorCode::format, needles, read, __FILE__, line);
}

std::vector<TokenId> read_tokens(const std::string& name, const std::string& content) {
    const TemporaryDirectory root;
    write_text(root / name, content);
    return read_token_file(root / name, TokenFormat::automatic, kVocab);
}

/// A version 1.0 NumPy file of `shape` with this dtype as Python source.
std::string npy(const std::string& descr, const std::string& shape, const std::string& data,
                const std::string& fortran = "False") {
    const std::string header = "{'descr': " + descr + ", 'fortran_order': " + fortran + ", 'shape': " + shape + ", }\n";
    return "\x93NUMPY\x01\0"s + little_endian(header.size(), 2) + header + data;
}

TEST(BadTokenFile, ValidOnesRead) {
    const std::vector<TokenId> ids = {1, 2, 99};
    EXPECT_EQ(read_tokens("t.u16", "\1\0\2\0c\0"s), ids);
    EXPECT_EQ(read_tokens("t.u32", "\1\0\0\0\2\0\0\0c\0\0\0"s), ids);
    EXPECT_EQ(read_tokens("t.npy", npy("'<u2'", "(3,)", "\1\0\2\0c\0"s)), ids);
    EXPECT_EQ(read_tokens("t.npy", npy("'<i8'", "(1, 3)", "\1\0\0\0\0\0\0\0\2\0\0\0\0\0\0\0c\0\0\0\0\0\0\0"s)), ids);
    EXPECT_EQ(read_tokens("t.jsonl", "{\"input_ids\":[1]}\r\n\n{\"text\":\"x\",\"input_ids\":[2,99]}"), ids);
    EXPECT_TRUE(read_tokens("t.u16", "").empty());
}

TEST(BadTokenFile, Missing) {
    const TemporaryDirectory root;
    expect_error(ErrorCode::io, {(root / "none.u16").string()},
                 [&] { (void)read_token_file(root / "none.u16", TokenFormat::u16, kVocab); });
}

TEST(BadTokenFile, BytesThatAreNotWholeTokens) {
    expect_token_error("t.u16", "\1\0\2"s, {"3 bytes", "2-byte"});
    for (const int size : {1, 2, 3, 5, 6, 7}) {
        expect_token_error("t.u32", std::string(static_cast<std::size_t>(size), '\0'),
                           {std::to_string(size) + " bytes", "4-byte"});
    }
    expect_token_error("t.npy", npy("'<u2'", "(2,)", "\1\0\2"s), {"3 bytes", "truncated"});
}

TEST(BadTokenFile, IdsOutsideTheVocabularySayWhere) {
    const std::string words = "vocab_size is 100";
    expect_token_error("t.u16", "\1\0\2\0d\0"s, {"token 2", "id 100", words});
    expect_token_error("t.bin", "\1\0\xff\xff"s, {"token 1", "id 65535", words});
    expect_token_error("t.u32", "\1\0\0\0\xff\xff\xff\xff"s, {"token 1", "id 4294967295", words});
    expect_token_error("t.npy", npy("'<i2'", "(2,)", "\1\0\xff\xff"s), {"token 1", "id -1", words});
    expect_token_error("t.npy", npy("'<i4'", "(2,)", "\1\0\0\0\xfe\xff\xff\xff"s), {"token 1", "id -2", words});
    expect_token_error("t.jsonl", "{\"input_ids\":[1,2]}\n{\"input_ids\":[3,100]}", {"token 3", "id 100", words});
    expect_token_error("t.jsonl", "{\"input_ids\":[1,-1]}", {"token 1", "id -1", words});
    // 2^32 + 1 must not be cut to 1.
    expect_token_error("t.npy", npy("'<i8'", "(1,)", "\1\0\0\0\1\0\0\0"s), {"token 0", "id 4294967297", words});
    // Ids beyond 63 bits keep their value and their place in the message.
    expect_token_error("t.npy", npy("'<u8'", "(1,)", std::string(8, '\xff')), {"token 0"});
    expect_token_error("t.jsonl", "{\"input_ids\":[1,18446744073709551615]}", {"token 1", "18446744073709551615"});
}

TEST(BadTokenFile, BrokenNpyHeaders) {
    const std::string valid = npy("'<u2'", "(2,)", "\1\0\2\0"s);
    expect_token_error("t.npy", "", {"NumPy"});
    expect_token_error("t.npy", "\1\0\2\0"s, {"NumPy"});
    expect_token_error("t.npy", "PK\x03\x04 an .npz renamed", {"NumPy"});
    for (std::size_t size = 0; size < valid.size() - 4; size += 3) {
        expect_token_error("t.npy", valid.substr(0, size), {"NumPy"});
    }
    for (const char version : {'\0', '\4', '\xff'}) {
        std::string file = valid;
        file[6] = version;
        expect_token_error("t.npy", file, {"NumPy"});
    }
    // A file of an unknown version is refused even if the rest looks familiar.
    expect_token_error("t.npy", "\x93NUMPY\x04\0"s + little_endian(valid.size() - 14, 4) + valid.substr(10), {"NumPy"});
    // Length of a 2.0 header that wraps around if the prefix is added to it.
    expect_token_error("t.npy", "\x93NUMPY\x02\0\xff\xff\xff\xff{}"s, {"NumPy", "header"});
}

TEST(BadTokenFile, ArraysOfAnotherKind) {
    for (const char* descr : {"'<f4'", "'>i4'", "'>u2'", "'|u1'", "'|b1'", "'<U2'", "'|O'"}) {
        SCOPED_TRACE(descr);
        expect_token_error("t.npy", npy(descr, "(2,)", std::string(8, '\0')), {"integers"});
    }
    // Records of an integer and a float are not integers.
    expect_token_error("t.npy", npy("[('id', '<i4'), ('p', '<f4')]", "(1,)", std::string(8, '\0')), {"integers"});
    expect_token_error("t.npy", npy("'<u2'", "(1, 2)", "\1\0\2\0"s, "True"), {"Fortran", "ascontiguousarray"});
}

TEST(BadTokenFile, NpyWithLessOrMoreThanItsShape) {
    // A copy that was truncated between two tokens is still incomplete.
    expect_token_error("t.npy", npy("'<u2'", "(4,)", "\1\0\2\0"s), {"t.npy"});
    expect_token_error("t.npy", npy("'<u2'", "(1,)", "\1\0\2\0"s), {"t.npy"});
    expect_token_error("t.npy", npy("'<u2'", "(2, 2)", "\1\0\2\0"s), {"t.npy"});
}

TEST(BadTokenFile, JsonLinesSayWhichLine) {
    const std::string good = "{\"input_ids\":[1]}\n";
    for (const std::string& line :
         {"{"s, "[1,2]"s, "1"s, "{}"s, "{\"ids\":[1]}"s, "{\"input_ids\":1}"s, "{\"input_ids\":\"1 2\"}"s,
          "{\"input_ids\":null}"s, "{\"input_ids\":{\"0\":1}}"s, "{\"input_ids\":[1]} x"s, "{\"input_ids\":[1]}\0x"s,
          "{\"input_ids\":[1],\"text\":\"\xff\"}"s}) {
        SCOPED_TRACE(testing::PrintToString(line));
        expect_token_error("t.jsonl", good + "\n" + line + "\n" + good, {"line 3", "input_ids"});
    }
    for (const char* id : {"1.0", "1.5", "\"1\"", "true", "null", "[1]", "{}", "1e3"}) {
        expect_token_error("t.jsonl", good + "{\"input_ids\":[1," + id + "]}", {"line 2", "'input_ids'"});
    }
    expect_token_error("t.jsonl", good + std::string(100'000, '['), {"line 2"});
}

TEST(BadTokenFile, ReadingStopsAtTheLimit) {
    const TemporaryDirectory root;
    write_text(root / "t.u16", "\1\0\2\0\xff\xff"s);
    EXPECT_EQ(read_token_file(root / "t.u16", TokenFormat::automatic, kVocab, 2), (std::vector<TokenId>{1, 2}));
    expect_error(ErrorCode::format, {"token 2"},
                 [&] { (void)read_token_file(root / "t.u16", TokenFormat::automatic, kVocab, 3); });
}

}  // namespace
}  // namespace mha2mla::test
