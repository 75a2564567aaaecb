#include <algorithm>
#include <bit>
#include <cstring>
#include <set>

#include "gguf_format.hpp"
#include "mha2mla/error.hpp"
#include "mha2mla/gguf.hpp"

namespace mha2mla {
namespace {

/// Reads numbers and strings in order; every length is checked against what is left of the file.
class Cursor {
public:
    Cursor(std::span<const std::byte> file, const std::string& name) : file_(file), name_(name) {}

    [[noreturn]] void fail(const std::string& problem) const {
        throw Error(ErrorCode::format, name_ + ": " + (where_.empty() ? "" : where_ + " ") + problem);
    }
    /// What is being read, for messages: "key 'general.name'".
    void at(std::string where) { where_ = std::move(where); }

    std::span<const std::byte> take(std::uint64_t bytes) {
        if (bytes > left()) fail("reaches beyond the end of the file; was the download cut off?");
        const auto taken = file_.subspan(offset_, bytes);
        offset_ += bytes;
        return taken;
    }
    template <typename Number>
    Number read() {
        Number number;
        std::memcpy(&number, take(sizeof(Number)).data(), sizeof(Number));
        return number;
    }
    std::string_view text() {
        const auto bytes = take(read<std::uint64_t>());
        return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
    }
    /// A count of items of at least `bytes` each. @throws Error{format} if the file cannot hold so many.
    std::uint64_t count(std::uint64_t bytes, const char* what) {
        const auto number = read<std::uint64_t>();
        if (number > left() / bytes) fail("says " + std::to_string(number) + " " + what + ", more than the file holds");
        return number;
    }

    [[nodiscard]] std::uint64_t offset() const { return offset_; }
    [[nodiscard]] std::uint64_t left() const { return file_.size() - offset_; }
    [[nodiscard]] std::span<const std::byte> since(std::uint64_t offset) const {
        return file_.subspan(offset, offset_ - offset);
    }

private:
    std::span<const std::byte> file_;
    const std::string& name_;
    std::string where_;
    std::uint64_t offset_ = 0;
};

constexpr int kDeepest = 4;
constexpr std::uint64_t kLongestName = 65535;  // as the format has it

void skip_elements(Cursor& in, std::uint32_t type, std::uint64_t count, int depth);

/// Type and count of an array, whose elements follow.
std::pair<std::uint32_t, std::uint64_t> array_head(Cursor& in) {
    const auto type = in.read<std::uint32_t>();
    if (type >= gguf::kSizes.size()) in.fail("has elements of an unknown type, " + std::to_string(type));
    constexpr std::uint64_t kText = 8, kArray = 12;
    const std::uint64_t least = type == gguf::string ? kText : type == gguf::array ? kArray : gguf::kSizes.at(type);
    return {type, in.count(least, "elements")};
}

void skip_elements(Cursor& in, std::uint32_t type, std::uint64_t count, int depth) {
    if (depth > kDeepest) in.fail("nests arrays too deeply");
    if (const std::uint64_t size = gguf::kSizes.at(type); size > 0) {
        (void)in.take(size * count);
        return;
    }
    for (std::uint64_t i = 0; i < count; ++i) {
        if (type == gguf::string) {
            (void)in.text();
        } else {
            const auto [inner, elements] = array_head(in);
            skip_elements(in, inner, elements, depth + 1);
        }
    }
}

GgufValue read_value(Cursor& in) {
    GgufValue value;
    value.type = in.read<std::uint32_t>();
    if (value.type >= gguf::kSizes.size()) in.fail("has an unknown type, " + std::to_string(value.type));
    value.array = value.type == gguf::array;
    if (value.array) std::tie(value.type, value.count) = array_head(in);
    const std::uint64_t begin = in.offset();
    skip_elements(in, value.type, value.count, 1);
    value.data = in.since(begin);
    return value;
}

struct Place {
    GgufTensor tensor;
    std::uint64_t offset = 0;  // in the data
};

Place read_tensor(Cursor& in) {
    constexpr std::uint32_t kMostDimensions = 4;
    constexpr std::int64_t kMostElements = std::int64_t{1} << 48;
    Place place;
    place.tensor.name = in.text();
    if (place.tensor.name.size() > kLongestName) in.fail("name is too long");
    in.at("tensor '" + place.tensor.name + "'");
    const auto dimensions = in.read<std::uint32_t>();
    if (dimensions < 1 || dimensions > kMostDimensions) {
        in.fail("must have one to four dimensions, not " + std::to_string(dimensions));
    }
    std::int64_t elements = 1;
    for (std::uint32_t i = 0; i < dimensions; ++i) {
        const auto size = in.read<std::int64_t>();
        if (size < 1 || size > kMostElements / elements) in.fail("has a dimension of " + std::to_string(size));
        elements *= size;
        place.tensor.shape.insert(place.tensor.shape.begin(), size);
    }
    const auto type = in.read<std::uint32_t>();
    place.tensor.format = find_block_format(type);
    if (place.tensor.format == nullptr) {
        throw Error(ErrorCode::unsupported, "tensor '" + place.tensor.name + "' is of type " + std::to_string(type) +
                                                ", which is not supported; supported: f32, f16, bf16, q4_0, q4_1, "
                                                "q5_0, q5_1, q8_0, q4_k, q5_k, q6_k");
    }
    if (place.tensor.row_length() % place.tensor.format->elements != 0) {
        in.fail("has rows of " + std::to_string(place.tensor.row_length()) + ", no whole blocks of " +
                std::string(place.tensor.format->name));
    }
    place.offset = in.read<std::uint64_t>();
    return place;
}

/// general.alignment, a power of two.
std::uint64_t alignment_of(const GgufContent& content, Cursor& in) {
    const auto found = content.values.find("general.alignment");
    if (found == content.values.end()) return gguf::kAlignment;
    constexpr std::uint32_t kLargest = 1U << 20U;
    std::uint32_t alignment = 0;
    in.at("key 'general.alignment'");
    if (found->second.type != gguf::u32 || found->second.array) in.fail("must be a number of 32 bits");
    std::memcpy(&alignment, found->second.data.data(), sizeof(alignment));
    if (!std::has_single_bit(alignment) || alignment > kLargest) in.fail("must be a power of two up to 2^20");
    return alignment;
}

void check_overlaps(std::vector<Place>& places, Cursor& in) {
    std::vector<const Place*> sorted;
    for (const Place& place : places) sorted.push_back(&place);
    std::sort(sorted.begin(), sorted.end(), [](const Place* a, const Place* b) { return a->offset < b->offset; });
    for (std::size_t i = 1; i < sorted.size(); ++i) {
        const Place &one = *sorted[i - 1], &next = *sorted[i];
        if (one.offset + one.tensor.data.size() <= next.offset) continue;
        in.at("tensors '" + one.tensor.name + "' and '" + next.tensor.name + "'");
        in.fail("overlap");
    }
}

void check_version(Cursor& in, const std::string& name) {
    const auto magic = in.take(gguf::kMagic.size());
    if (std::memcmp(magic.data(), gguf::kMagic.data(), magic.size()) != 0) in.fail("is not a GGUF file");
    const auto version = in.read<std::uint32_t>();
    if (version == 2 || version == gguf::kVersion) return;
    const bool swapped = (version & 0xFFFFU) == 0;
    throw Error(ErrorCode::unsupported,
                name + ": " +
                    (swapped ? "big-endian files are not supported"
                             : "version " + std::to_string(version) + " of GGUF is not supported; supported: 2 and 3"));
}

}  // namespace

GgufContent parse_gguf(std::span<const std::byte> file, const std::string& file_name) {
    constexpr std::uint64_t kLeastKey = 13, kLeastTensor = 33;
    Cursor in(file, file_name);
    check_version(in, file_name);
    const std::uint64_t tensors = in.count(kLeastTensor, "tensors");
    const std::uint64_t keys = in.count(kLeastKey, "keys");
    GgufContent content;
    for (std::uint64_t i = 0; i < keys; ++i) {
        in.at("key " + std::to_string(i));
        const std::string key(in.text());
        if (key.size() > kLongestName) in.fail("is too long");
        in.at("key '" + key + "'");
        if (!content.values.emplace(key, read_value(in)).second) in.fail("appears twice");
    }
    std::vector<Place> places;
    std::set<std::string, std::less<>> names;
    for (std::uint64_t i = 0; i < tensors; ++i) {
        in.at("tensor " + std::to_string(i));
        try {
            places.push_back(read_tensor(in));
        } catch (const Error& error) {
            if (error.code() == ErrorCode::unsupported) throw error.with_prefix(file_name + ": ");
            throw;
        }
        if (!names.insert(places.back().tensor.name).second) in.fail("appears twice");
    }
    const std::uint64_t alignment = alignment_of(content, in);
    const std::uint64_t start = gguf::aligned(in.offset(), alignment);
    for (Place& place : places) {
        in.at("tensor '" + place.tensor.name + "'");
        if (place.offset % alignment != 0) in.fail("does not start at a multiple of " + std::to_string(alignment));
        const auto bytes =
            static_cast<std::uint64_t>(place.tensor.format->bytes_of(place.tensor.rows() * place.tensor.row_length()));
        if (start > file.size() || place.offset > file.size() - start || bytes > file.size() - start - place.offset) {
            in.fail("reaches beyond the end of the file; was the download cut off?");
        }
        place.tensor.data = file.subspan(start + place.offset, bytes);
    }
    check_overlaps(places, in);
    for (Place& place : places) content.tensors.push_back(std::move(place.tensor));
    return content;
}

}  // namespace mha2mla
