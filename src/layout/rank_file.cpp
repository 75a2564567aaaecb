#include <zip.h>

#include <charconv>
#include <cstring>
#include <memory>

#include "mha2mla/error.hpp"
#include "mha2mla/layout.hpp"
#include "mha2mla/mapped_file.hpp"
#include "mha2mla/tensor.hpp"

namespace mha2mla {
namespace {

constexpr std::uint64_t kMaxRankBytes = 64'000'000;

struct ZipCloser {
    void operator()(zip_t* archive) const { zip_discard(archive); }
    void operator()(zip_file_t* file) const { zip_fclose(file); }
};
using Zip = std::unique_ptr<zip_t, ZipCloser>;

[[noreturn]] void fail(const std::string& file, const std::string& problem) {
    throw Error(ErrorCode::format, file + ": " + problem +
                                       "; expected a rank file saved by torch.save: a uint8 or int64 "
                                       "tensor [layers, KV heads, head_dim]");
}

/// The entry whose name ends in "/<suffix>".
std::string read_entry(zip_t* archive, const std::string& suffix, const std::string& file) {
    const auto count = zip_get_num_entries(archive, 0);
    for (zip_int64_t i = 0; i < count; ++i) {
        zip_stat_t status;
        if (zip_stat_index(archive, static_cast<zip_uint64_t>(i), 0, &status) != 0) continue;
        const std::string_view name = status.name == nullptr ? "" : status.name;
        // "archive/.data/serialization_id" must not match "archive/data/...": the prefix is one folder.
        const auto slash = name.find('/');
        if (slash == std::string_view::npos || name.substr(slash + 1) != suffix) continue;
        if (status.size > kMaxRankBytes) fail(file, "entry '" + suffix + "' is too large");
        const std::unique_ptr<zip_file_t, ZipCloser> entry(zip_fopen_index(archive, static_cast<zip_uint64_t>(i), 0));
        std::string data(status.size, '\0');
        // libzip compares the checksum when the end is reached.
        char beyond = 0;
        if (!entry || zip_fread(entry.get(), data.data(), data.size()) != static_cast<zip_int64_t>(data.size()) ||
            zip_fread(entry.get(), &beyond, 1) != 0) {
            fail(file, "entry '" + suffix + "' is damaged");
        }
        return data;
    }
    fail(file, "entry '" + suffix + "' is missing");
}

/// Parses the sequence of pickle opcodes that torch.save writes for a contiguous uint8 tensor. Nothing is constructed
/// or called; any other opcode is an error.
class RankPickle {
public:
    RankPickle(std::string_view data, std::string file) : data_(data), file_(std::move(file)) {}

    /// [layers, kv_heads, head_dim]; `storage` becomes the storage's key, `width` the bytes of a number.
    Shape read(std::string& storage, std::size_t& width) {
        literal("\x80\x02");
        global("torch._utils", "_rebuild_tensor_v2");
        literal("(");
        literal("(");
        if (text() != "storage") bad();
        skip_memo();
        width = data_.substr(std::min(position_, data_.size())).starts_with("ctorch\nLongStorage\n") ? 8 : 1;
        global("torch", width == 8 ? "LongStorage" : "ByteStorage");
        storage = text();
        (void)text();  // the device of the tensor
        const std::int64_t elements = number();
        literal("t");
        literal("Q");
        if (number() != 0) bad();  // storage offset
        Shape shape = triple();
        const Shape strides = triple();
        // Each is bounded first, so that the product cannot overflow.
        const auto in_range = [](std::int64_t size) { return size >= 1 && size <= 65536; };
        if (!in_range(shape[0]) || !in_range(shape[1]) || !in_range(shape[2]) ||
            element_count(shape) != static_cast<std::uint64_t>(elements) ||
            strides != Shape{shape[1] * shape[2], shape[2], 1}) {
            bad();
        }
        literal("\x89");  // requires_grad = False
        global("collections", "OrderedDict");
        literal(")");
        literal("R");
        literal("t");
        literal("R");
        literal(".");
        if (position_ != data_.size()) bad();
        return shape;
    }

private:
    [[noreturn]] void bad() const {
        fail(file_, "holds something else at byte " + std::to_string(position_) + " of data.pkl");
    }

    /// Skips opcodes that store a value for later use (BINPUT, LONG_BINPUT), which have no meaning here.
    void skip_memo() {
        while (position_ < data_.size() && (data_[position_] == 'q' || data_[position_] == 'r')) {
            position_ += data_[position_] == 'q' ? 2 : 5;
        }
    }
    void literal(std::string_view expected) {
        skip_memo();
        if (position_ > data_.size() || data_.substr(position_, expected.size()) != expected) bad();
        position_ += expected.size();
    }
    void global(const std::string& module, const std::string& name) { literal("c" + module + "\n" + name + "\n"); }

    std::uint32_t little_endian(std::size_t bytes) {
        if (data_.size() - position_ < bytes) bad();
        std::uint32_t value = 0;
        std::memcpy(&value, data_.data() + position_, bytes);
        position_ += bytes;
        return value;
    }
    std::string text() {
        literal("X");
        const std::uint32_t length = little_endian(4);
        if (length > 256 || data_.size() - position_ < length) bad();
        std::string result(data_.substr(position_, length));
        position_ += length;
        return result;
    }
    std::int64_t number() {
        skip_memo();
        if (position_ >= data_.size()) bad();
        const char opcode = data_[position_++];
        if (opcode == 'K') return little_endian(1);
        if (opcode == 'M') return little_endian(2);
        if (opcode == 'J') return static_cast<std::int32_t>(little_endian(4));
        --position_;
        bad();
    }
    Shape triple() {
        const std::int64_t a = number();
        const std::int64_t b = number();
        const std::int64_t c = number();
        literal("\x87");
        return {a, b, c};
    }

    std::string_view data_;
    std::string file_;
    std::size_t position_ = 0;
};

/// Checks that each half of a head has every rank once, and that both halves are equal.
void check_ranks(const PairRanks& ranks, const std::string& file) {
    const auto pairs = static_cast<std::size_t>(ranks.head_dim / 2);
    if (ranks.head_dim % 2 != 0) fail(file, "head_dim is odd");
    for (std::size_t head = 0; head * 2 * pairs < ranks.values.size(); ++head) {
        const std::uint8_t* first = ranks.values.data() + head * 2 * pairs;
        std::vector<bool> seen(pairs);
        for (std::size_t k = 0; k < pairs; ++k) {
            if (first[k] >= pairs || seen[first[k]] || first[k] != first[pairs + k]) {
                fail(file, "ranks of layer " + std::to_string(head / static_cast<std::size_t>(ranks.kv_heads)) +
                               ", KV head " + std::to_string(head % static_cast<std::size_t>(ranks.kv_heads)) +
                               " are not a permutation that both halves share");
            }
            seen[first[k]] = true;
        }
    }
}

/// Little-endian numbers of `width` bytes as one byte each.
std::string in_bytes(const std::string& values, std::size_t width, const std::string& file) {
    if (width == 1) return values;
    std::string bytes;
    for (std::size_t first = 0; first + width <= values.size(); first += width) {
        for (std::size_t i = 1; i < width; ++i) {
            if (values[first + i] != 0) fail(file, "a rank is not from 0 to 255");
        }
        bytes += values[first];
    }
    return bytes;
}

void put_number(std::string& pickle, std::int64_t value) {
    const auto bits = static_cast<std::uint32_t>(value);
    const std::size_t bytes = value < 256 ? 1 : value < 65536 ? 2 : 4;
    pickle += bytes == 1 ? 'K' : bytes == 2 ? 'M' : 'J';
    pickle.append(reinterpret_cast<const char*>(&bits), bytes);
}

std::string rank_pickle(const PairRanks& ranks) {
    const auto text = [](std::string_view value) {
        return "X" + std::string(1, static_cast<char>(value.size())) + std::string(3, '\0') + std::string(value);
    };
    std::string pickle =
        "\x80\x02"
        "ctorch._utils\n_rebuild_tensor_v2\n((";
    pickle += text("storage") + "ctorch\nByteStorage\n" + text("0") + text("cpu");
    put_number(pickle, static_cast<std::int64_t>(ranks.values.size()));
    pickle += "tQ";
    put_number(pickle, 0);
    for (const std::int64_t size : {ranks.layers, ranks.kv_heads, ranks.head_dim}) put_number(pickle, size);
    pickle += '\x87';
    for (const std::int64_t stride : {ranks.kv_heads * ranks.head_dim, ranks.head_dim, std::int64_t{1}}) {
        put_number(pickle, stride);
    }
    return pickle +
           "\x87\x89"
           "ccollections\nOrderedDict\n)RtR.";
}

}  // namespace

std::vector<std::int64_t> PairRanks::first_pairs(std::int64_t layer, std::int64_t kv_head, std::int64_t count) const {
    std::vector<std::int64_t> pairs;
    for (std::int64_t k = 0; k < head_dim / 2; ++k) {
        if (rank(layer, kv_head, k) < count) pairs.push_back(k);
    }
    return pairs;
}

LayerPairs kept_pairs(const PairRanks& ranks, std::int64_t layer, std::int64_t rope_dim) {
    LayerPairs pairs;
    for (std::int64_t head = 0; head < ranks.kv_heads; ++head) {
        pairs.push_back(ranks.first_pairs(layer, head, rope_dim / 2));
    }
    return pairs;
}

PairRanks read_rank_file(const std::filesystem::path& path) {
    const MappedFile mapped(path);  // for a clear error if it is missing
    int code = 0;
    const Zip archive(zip_open(path.c_str(), ZIP_RDONLY, &code));
    if (!archive) fail(path.string(), "not a zip archive");
    std::string storage;
    std::size_t width = 1;
    const std::string pickle = read_entry(archive.get(), "data.pkl", path.string());
    const Shape shape = RankPickle(pickle, path.string()).read(storage, width);
    const std::string values =
        in_bytes(read_entry(archive.get(), "data/" + storage, path.string()), width, path.string());
    PairRanks ranks{shape[0], shape[1], shape[2], {values.begin(), values.end()}};
    if (values.size() != element_count(shape)) fail(path.string(), "storage has another size than the tensor");
    check_ranks(ranks, path.string());
    return ranks;
}

std::string rank_file_bytes(const PairRanks& ranks) {
    // libzip frees the archive's buffer with its source, which is kept until the bytes are copied.
    zip_source_t* buffer = zip_source_buffer_create(nullptr, 0, 0, nullptr);
    zip_source_keep(buffer);
    zip_t* archive = zip_open_from_source(buffer, ZIP_TRUNCATE, nullptr);
    const std::string pickle = rank_pickle(ranks);
    const std::string version = "3\n";
    const auto add = [&](const char* name, const void* data, std::size_t size) {
        zip_source_t* source = zip_source_buffer(archive, data, size, 0);
        const auto index = zip_file_add(archive, name, source, ZIP_FL_ENC_UTF_8);
        zip_set_file_compression(archive, static_cast<zip_uint64_t>(index), ZIP_CM_STORE, 0);
        zip_file_set_dostime(archive, static_cast<zip_uint64_t>(index), 0, 0x21, 0);  // 1980-01-01: same bytes always
    };
    add("2_norm_rank/data.pkl", pickle.data(), pickle.size());
    add("2_norm_rank/data/0", ranks.values.data(), ranks.values.size());
    add("2_norm_rank/version", version.data(), version.size());
    if (zip_close(archive) != 0) throw Error(ErrorCode::io, "cannot build the rank file in memory");
    zip_stat_t status;
    zip_source_stat(buffer, &status);
    std::string bytes(status.size, '\0');
    zip_source_open(buffer);
    zip_source_read(buffer, bytes.data(), bytes.size());
    zip_source_close(buffer);
    zip_source_free(buffer);
    return bytes;
}

}  // namespace mha2mla
