#include "mha2mla/safetensors.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

#include "mha2mla/error.hpp"

namespace mha2mla {
namespace {

constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;

using Json = nlohmann::json;

/// Parses a header event by event. Only the exact structure of the format is accepted, so a hostile header is refused
/// at the first violation, before it is built into a tree.
class HeaderReader final : public nlohmann::json_sax<Json> {
public:
    HeaderReader(SafetensorsHeader& header, std::string_view file) : header_(header), file_(file) {}

    bool key(string_t& name) override {
        if (place_ == Place::top) {
            if (!names_.insert(name).second) fail("'" + name + "' is defined twice");
            if (name == "__metadata__") {
                expect_ = Expect::metadata;
            } else {
                header_.entries.push_back({});
                header_.entries.back().name = name;
                expect_ = Expect::tensor;
            }
        } else if (place_ == Place::metadata) {
            metadata_key_ = name;
            if (header_.metadata.contains(name)) fail("__metadata__ key '" + name + "' is defined twice");
        } else {
            constexpr std::array<std::string_view, 3> kFields = {"dtype", "shape", "data_offsets"};
            constexpr std::array<Expect, 3> kExpected = {Expect::dtype, Expect::shape, Expect::offsets};
            const auto field =
                static_cast<std::size_t>(std::find(kFields.begin(), kFields.end(), name) - kFields.begin());
            if (field == kFields.size()) fail(where() + ": unknown key '" + name + "'");
            if (seen_[field]) fail(where() + ": key '" + name + "' is given twice");
            seen_[field] = true;
            expect_ = kExpected[field];
        }
        return true;
    }

    bool start_object(std::size_t) override {
        if (place_ == Place::start) {
            place_ = Place::top;
        } else if (place_ == Place::top && expect_ == Expect::metadata) {
            place_ = Place::metadata;
        } else if (place_ == Place::top && expect_ == Expect::tensor) {
            place_ = Place::tensor;
            seen_ = {};
            offsets_.clear();
        } else {
            unexpected("an object");
        }
        return true;
    }

    bool end_object() override {
        if (place_ == Place::tensor) {
            if (!seen_[0] || !seen_[1] || !seen_[2]) fail(where() + ": needs dtype, shape and data_offsets");
            if (offsets_.size() != 2) fail(where() + ": data_offsets must be two numbers");
            header_.entries.back().begin = offsets_[0];
            header_.entries.back().end = offsets_[1];
        }
        place_ = place_ == Place::top ? Place::end : Place::top;
        return true;
    }

    bool start_array(std::size_t) override {
        if (place_ != Place::tensor) unexpected("an array");
        if (expect_ == Expect::shape) {
            place_ = Place::shape;
        } else if (expect_ == Expect::offsets) {
            place_ = Place::offsets;
        } else {
            unexpected("an array");
        }
        return true;
    }

    bool end_array() override {
        place_ = Place::tensor;
        return true;
    }

    bool string(string_t& value) override {
        if (place_ == Place::metadata) {
            header_.metadata.emplace(metadata_key_, value);
        } else if (place_ == Place::tensor && expect_ == Expect::dtype) {
            const auto dtype = parse_dtype(value);
            if (!dtype) fail(where() + ": unknown dtype '" + value + "'");
            header_.entries.back().dtype = *dtype;
        } else {
            unexpected("a string");
        }
        return true;
    }

    bool number_unsigned(number_unsigned_t value) override {
        if (place_ == Place::shape) {
            if (value > static_cast<std::uint64_t>(INT64_MAX)) fail(where() + ": shape has too many elements");
            if (header_.entries.back().shape.size() >= 64) fail(where() + ": more than 64 dimensions");
            header_.entries.back().shape.push_back(static_cast<std::int64_t>(value));
        } else if (place_ == Place::offsets) {
            if (offsets_.size() == 2) fail(where() + ": data_offsets must be two numbers");
            offsets_.push_back(value);
        } else {
            unexpected("a number");
        }
        return true;
    }

    bool null() override {
        if (place_ != Place::top || expect_ != Expect::metadata) unexpected("null");
        return true;
    }
    bool boolean(bool) override { unexpected("a boolean"); }
    bool number_integer(number_integer_t) override { unexpected("a negative number"); }
    bool number_float(number_float_t, const string_t&) override { unexpected("a number that is not whole"); }
    bool binary(binary_t&) override { unexpected("binary data"); }

    bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception& error) override {
        fail("header is not a UTF-8 JSON object (byte " + std::to_string(position) + ": " + error.what() + ")");
    }

private:
    enum class Place { start, top, metadata, tensor, shape, offsets, end };
    enum class Expect { none, metadata, tensor, dtype, shape, offsets };

    [[nodiscard]] std::string where() const {
        return header_.entries.empty() ? "header" : "tensor '" + header_.entries.back().name + "'";
    }
    [[noreturn]] void fail(const std::string& message) const {
        throw Error(ErrorCode::format, std::string(file_) + ": " + message);
    }
    [[noreturn]] void unexpected(const std::string& thing) const {
        if (place_ == Place::start) fail("header must be a JSON object, not " + thing);
        if (place_ == Place::metadata || (place_ == Place::top && expect_ == Expect::metadata)) {
            fail("__metadata__ must map strings to strings, but holds " + thing);
        }
        fail(where() + ": " + thing + " is out of place");
    }

    SafetensorsHeader& header_;
    std::string_view file_;
    Place place_ = Place::start;
    Expect expect_ = Expect::none;
    std::array<bool, 3> seen_{};
    std::vector<std::uint64_t> offsets_;
    std::string metadata_key_;
    std::set<std::string, std::less<>> names_;
};

/// Checks that the ranges of the tensors cover the data section without gaps and overlaps.
void check_ranges(SafetensorsHeader& header, std::uint64_t data_bytes, std::string_view file) {
    std::stable_sort(header.entries.begin(), header.entries.end(), [](const auto& a, const auto& b) {
        return a.begin != b.begin ? a.begin < b.begin : a.end < b.end;
    });
    const std::string prefix = std::string(file) + ": ";
    std::uint64_t position = 0;
    const SafetensorsHeader::Entry* previous = nullptr;
    for (const auto& entry : header.entries) {
        const std::string where = prefix + "tensor '" + entry.name + "'";
        const std::string range = "[" + std::to_string(entry.begin) + ", " + std::to_string(entry.end) + ")";
        if (entry.end < entry.begin)
            throw Error(ErrorCode::format, where + ": data_offsets " + range + " run backwards");
        std::uint64_t expected = 0;
        try {
            expected = byte_count(entry.dtype, entry.shape);
        } catch (const Error& error) {
            throw Error(ErrorCode::format, where + ": " + error.what());
        }
        if (entry.end - entry.begin != expected) {
            throw Error(ErrorCode::format, where + ": shape " + to_string(entry.shape) + " of " +
                                               std::string(dtype_name(entry.dtype)) + " needs " +
                                               std::to_string(expected) + " bytes, but data_offsets " + range +
                                               " hold " + std::to_string(entry.end - entry.begin));
        }
        if (entry.begin < position) {
            throw Error(ErrorCode::format, where + ": its bytes overlap those of tensor '" + previous->name + "'");
        }
        if (entry.begin > position) {
            throw Error(ErrorCode::format,
                        where + ": " + std::to_string(entry.begin - position) + " bytes before it belong to no tensor");
        }
        if (entry.end > data_bytes) {
            throw Error(ErrorCode::format, where + ": data_offsets " + range + " pass the end of the data (" +
                                               std::to_string(data_bytes) +
                                               " bytes); the file is truncated: download or copy it again");
        }
        position = entry.end;
        previous = &entry;
    }
    if (position != data_bytes) {
        throw Error(ErrorCode::format, prefix + std::to_string(data_bytes - position) +
                                           " bytes after the last tensor belong to no tensor");
    }
}

}  // namespace

SafetensorsHeader validate(std::span<const std::byte> file, std::string_view file_name) {
    const std::string prefix = std::string(file_name) + ": ";
    if (file.size() < 8) {
        throw Error(ErrorCode::format, prefix + "only " + std::to_string(file.size()) +
                                           " bytes long; a safetensors file starts with an 8-byte header length");
    }
    std::uint64_t header_bytes = 0;
    std::memcpy(&header_bytes, file.data(), 8);
    if (header_bytes > kMaxHeaderBytes) {
        throw Error(ErrorCode::format, prefix + "header length " + std::to_string(header_bytes) +
                                           " exceeds 100,000,000; this is not a safetensors file");
    }
    if (header_bytes > file.size() - 8) {
        throw Error(ErrorCode::format, prefix + "header length " + std::to_string(header_bytes) +
                                           " passes the end of the file (" + std::to_string(file.size()) +
                                           " bytes); the file is truncated: download or copy it again");
    }
    const char* text = reinterpret_cast<const char*>(file.data()) + 8;
    if (header_bytes == 0 || text[0] != '{') {
        throw Error(ErrorCode::format, prefix + "header must be a JSON object that starts with '{'");
    }
    // The JSON parser would read a NUL as the end of its input.
    if (std::memchr(text, 0, header_bytes) != nullptr) {
        throw Error(ErrorCode::format, prefix + "header is not a UTF-8 JSON object (it holds a NUL byte)");
    }
    SafetensorsHeader header;
    header.data_start = 8 + header_bytes;
    HeaderReader reader(header, file_name);
    Json::sax_parse(text, text + header_bytes, &reader);
    check_ranges(header, file.size() - header.data_start, file_name);
    return header;
}

namespace {

/// What people download in place of a weight file.
struct Mistaken {
    std::string_view start, what;
};
constexpr std::array<Mistaken, 4> kMistaken = {{
    {"version https://git-lfs", "a Git LFS pointer instead of the file; run 'git lfs pull' in its directory"},
    {"<!DOCTYPE", "a web page instead of the file; download it again"},
    {"<!doctype", "a web page instead of the file; download it again"},
    {"<html", "a web page instead of the file; download it again"},
}};

void refuse_mistaken(std::span<const std::byte> bytes, const std::string& path) {
    const std::string_view text(reinterpret_cast<const char*>(bytes.data()), std::min<std::size_t>(64, bytes.size()));
    for (const Mistaken& row : kMistaken) {
        if (text.starts_with(row.start)) throw Error(ErrorCode::format, path + ": is " + std::string(row.what));
    }
}

}  // namespace

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path) : path_(path), file_(path) {
    refuse_mistaken(file_.bytes(), path.string());
    auto header = validate(file_.bytes(), path.string());
    metadata_ = std::move(header.metadata);
    tensors_.reserve(header.entries.size());
    for (auto& entry : header.entries) {
        const std::uint64_t offset = header.data_start + entry.begin;
        tensors_.push_back({std::move(entry.name), entry.dtype, std::move(entry.shape),
                            file_.bytes().subspan(offset, entry.end - entry.begin), path.filename().string(), offset});
    }
}

const TensorView* SafetensorsFile::find(std::string_view name) const {
    const auto it = std::find_if(tensors_.begin(), tensors_.end(), [&](const auto& t) { return t.name == name; });
    return it == tensors_.end() ? nullptr : &*it;
}

}  // namespace mha2mla
