#include "mha2mla/token_file.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <utility>

#include "../support/json_file.hpp"
#include "mha2mla/error.hpp"
#include "mha2mla/mapped_file.hpp"

namespace mha2mla {
namespace {

/// Collects ids, checks each, and knows when there are enough.
class Collector {
public:
    Collector(std::string file, std::int64_t vocab_size, std::optional<std::int64_t> max_tokens)
        : file_(std::move(file)),
          vocab_size_(vocab_size),
          max_(static_cast<std::size_t>(max_tokens.value_or(std::numeric_limits<std::int64_t>::max()))) {}

    [[nodiscard]] bool full() const { return ids_.size() >= max_; }
    /// @param id of any integer type.
    template <typename Integer>
    void add(Integer id) {
        if (full()) return;
        if (std::cmp_less(id, 0) || std::cmp_greater_equal(id, vocab_size_)) {
            fail("token " + std::to_string(ids_.size()) + " has id " + std::to_string(id) +
                 ", but the model's vocab_size is " + std::to_string(vocab_size_) +
                 "; is it another token format or another tokenizer's file?");
        }
        ids_.push_back(static_cast<TokenId>(id));
    }
    [[noreturn]] void fail(const std::string& problem) const { throw Error(ErrorCode::format, file_ + ": " + problem); }
    [[nodiscard]] std::vector<TokenId> take() { return std::move(ids_); }

private:
    std::string file_;
    std::int64_t vocab_size_;
    std::size_t max_;
    std::vector<TokenId> ids_;
};

template <typename Stored>
void add_raw(std::span<const std::byte> data, Collector& out) {
    if (data.size() % sizeof(Stored) != 0) {
        out.fail(std::to_string(data.size()) + " bytes are not a whole number of " + std::to_string(sizeof(Stored)) +
                 "-byte tokens; is it another token format?");
    }
    for (std::size_t i = 0; i < data.size() && !out.full(); i += sizeof(Stored)) {
        Stored value;
        std::memcpy(&value, data.data() + i, sizeof(Stored));
        out.add(value);
    }
}

/// The text of a value of the Python dict literal in a NumPy header: the text between "'key': " and `end`.
std::string_view npy_value(std::string_view header, std::string_view key, char end, const Collector& out) {
    const std::string start = "'" + std::string(key) + "': ";
    const std::size_t at = header.find(start);
    const std::size_t stop = at == std::string_view::npos ? at : header.find(end, at + start.size());
    if (stop == std::string_view::npos) out.fail("NumPy header has no '" + std::string(key) + "'");
    return header.substr(at + start.size(), stop - at - start.size());
}

/// The number of elements of a shape such as "(4, 3" or "(8,".
std::uint64_t npy_elements(std::string_view shape, const Collector& out) {
    std::uint64_t count = 1;
    while (!shape.empty()) {
        std::uint64_t size = 0;
        const auto [end, error] = std::from_chars(shape.data(), shape.data() + shape.size(), size);
        if (error == std::errc::result_out_of_range ||
            (error == std::errc() && __builtin_mul_overflow(count, size, &count))) {
            out.fail("NumPy shape has too many elements");
        }
        const std::size_t read = static_cast<std::size_t>(end - shape.data());
        shape.remove_prefix(read > 0 ? read : 1);
    }
    return count;
}

struct NpyType {
    std::string_view descr;
    std::size_t bytes;
    void (*add)(std::span<const std::byte>, Collector&);
};
constexpr std::array<NpyType, 6> kNpyTypes = {{{"'<u2'", 2, add_raw<std::uint16_t>},
                                               {"'<i2'", 2, add_raw<std::int16_t>},
                                               {"'<u4'", 4, add_raw<std::uint32_t>},
                                               {"'<i4'", 4, add_raw<std::int32_t>},
                                               {"'<u8'", 8, add_raw<std::uint64_t>},
                                               {"'<i8'", 8, add_raw<std::int64_t>}}};

/// NumPy format 1.0 to 3.0: magic, version, header length, a Python dict literal, data.
void add_npy(std::span<const std::byte> data, Collector& out) {
    const std::string_view bytes(reinterpret_cast<const char*>(data.data()), data.size());
    if (bytes.size() < 12 || bytes.substr(0, 6) != "\x93NUMPY") out.fail("not a NumPy .npy file");
    if (bytes[6] < 1 || bytes[6] > 3) out.fail("NumPy format " + std::to_string(bytes[6]) + " is unknown");
    const bool short_header = bytes[6] == 1;
    const std::size_t start = short_header ? 10 : 12;
    std::uint32_t length = 0;
    std::memcpy(&length, bytes.data() + 8, short_header ? 2 : 4);
    if (length > bytes.size() - start) out.fail("NumPy header passes the end of the file");
    const std::string_view header = bytes.substr(start, length);
    const auto body = data.subspan(start + length);
    if (npy_value(header, "fortran_order", ',', out) != "False") {
        out.fail("the array is in Fortran order; save it with numpy.ascontiguousarray");
    }
    const std::string_view descr = npy_value(header, "descr", ',', out);
    const auto type = std::find_if(kNpyTypes.begin(), kNpyTypes.end(), [&](const auto& t) { return t.descr == descr; });
    if (type == kNpyTypes.end()) out.fail("the array is not of 2-, 4- or 8-byte little-endian integers");
    const std::uint64_t elements = npy_elements(npy_value(header, "shape", ')', out), out);
    if (body.size() % type->bytes != 0 || body.size() / type->bytes != elements) {
        out.fail("NumPy shape has " + std::to_string(elements) + " elements, but the file holds " +
                 std::to_string(body.size()) + " bytes of data; is it truncated?");
    }
    type->add(body, out);
}

void add_json_lines(std::string_view text, Collector& out) {
    std::size_t number = 0;
    while (!text.empty() && !out.full()) {
        const std::size_t end = std::min(text.find('\n'), text.size());
        const std::string_view line = text.substr(0, end);
        text.remove_prefix(std::min(end + 1, text.size()));
        ++number;
        if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
        const auto json = parse_json(line);
        const std::string where = "line " + std::to_string(number);
        if (!json.is_object() || !json.contains("input_ids") || !json["input_ids"].is_array()) {
            out.fail(where + " is not a JSON object with a list 'input_ids'");
        }
        for (const auto& id : json["input_ids"]) {
            if (!id.is_number_integer()) out.fail(where + ": 'input_ids' holds " + id.dump());
            if (id.is_number_unsigned()) {
                out.add(id.get<std::uint64_t>());
            } else {
                out.add(id.get<std::int64_t>());
            }
        }
    }
}

TokenFormat guess_format(const std::filesystem::path& path, std::int64_t vocab_size) {
    const std::string extension = path.extension().string();
    for (const auto& row : kTokenFormats) {
        if (row.format != TokenFormat::automatic && extension == "." + std::string(row.name)) return row.format;
    }
    return vocab_size > 65535 ? TokenFormat::u32 : TokenFormat::u16;
}

}  // namespace

std::vector<TokenId> read_token_file(const std::filesystem::path& path, TokenFormat format, std::int64_t vocab_size,
                                     std::optional<std::int64_t> max_tokens) {
    const MappedFile file(path);
    const auto data = file.bytes();
    Collector out(path.string(), vocab_size, max_tokens);
    switch (format == TokenFormat::automatic ? guess_format(path, vocab_size) : format) {
        case TokenFormat::automatic:
        case TokenFormat::u16:
            add_raw<std::uint16_t>(data, out);
            break;
        case TokenFormat::u32:
            add_raw<std::uint32_t>(data, out);
            break;
        case TokenFormat::npy:
            add_npy(data, out);
            break;
        case TokenFormat::jsonl:
            add_json_lines({reinterpret_cast<const char*>(data.data()), data.size()}, out);
            break;
    }
    return out.take();
}

}  // namespace mha2mla
