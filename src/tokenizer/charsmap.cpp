#include "charsmap.hpp"

#include <utf8proc.h>

#include <array>
#include <optional>

#include "utf8.hpp"

namespace mha2mla {
namespace {

constexpr std::size_t kLongestCluster = 5;  // bytes; longer ones are read character by character

/// The bytes of a text in base64, or nothing if it is not.
std::optional<std::string> decode_base64(std::string_view text) {
    constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    std::array<int, 256> values{};
    values.fill(-1);
    for (std::size_t i = 0; i < kDigits.size(); ++i)
        values[static_cast<unsigned char>(kDigits[i])] = static_cast<int>(i);
    while (text.ends_with('=')) text.remove_suffix(1);
    std::string out;
    std::uint32_t bits = 0;
    unsigned count = 0;
    for (const char c : text) {
        const int value = values[static_cast<unsigned char>(c)];
        if (value < 0) return std::nullopt;
        bits = (bits << 6 | static_cast<std::uint32_t>(value)) & 0xFFFFFF;
        count += 6;
        if (count < 8) continue;
        count -= 8;
        out += static_cast<char>(static_cast<unsigned char>(bits >> count & 0xFF));
    }
    return out;
}

std::uint32_t little_endian(std::string_view bytes, std::size_t at) {
    std::uint32_t value = 0;
    for (std::size_t i = 4; i-- > 0;) value = value << 8 | static_cast<unsigned char>(bytes[at + i]);
    return value;
}

// The fields of a unit of the double array.
bool has_leaf(std::uint32_t unit) { return (unit >> 8 & 1) != 0; }
std::uint32_t value_of(std::uint32_t unit) { return unit & 0x7FFFFFFF; }
std::uint32_t label_of(std::uint32_t unit) { return unit & 0x800000FF; }
std::uint32_t offset_of(std::uint32_t unit) { return (unit >> 10) << ((unit & 0x200) >> 6); }

}  // namespace

Charsmap::Charsmap(const JsonNode& node) {
    const auto bytes = decode_base64(node.string());
    const std::size_t size = bytes && bytes->size() >= 4 ? little_endian(*bytes, 0) : 0;
    if (size < 4 || size % 4 != 0 || size > bytes->size() - 4) {
        node.fail(ErrorCode::format, "is not a table of characters in base64; is the file complete?");
    }
    auto table = std::make_shared<Table>();
    for (std::size_t at = 4; at < 4 + size; at += 4) table->units.push_back(little_endian(*bytes, at));
    table->texts = bytes->substr(4 + size);
    if (utf8::find_invalid(table->texts)) node.fail(ErrorCode::format, "has texts that are not UTF-8");
    table_ = std::move(table);
}

bool Charsmap::append_replacement(std::string_view part, std::string& out) const {
    const auto& units = table_->units;
    const auto unit_at = [&](std::size_t at) { return at < units.size() ? units[at] : 0; };
    std::size_t node = offset_of(units[0]);
    for (const char c : part) {
        const auto byte = static_cast<unsigned char>(c);
        if (byte == 0) return false;
        node ^= byte;
        const std::uint32_t unit = unit_at(node);
        if (label_of(unit) != byte) return false;
        node ^= offset_of(unit);
        if (!has_leaf(unit)) continue;
        // As in the Rust library, the shortest beginning that the table has stands for the whole part.
        const std::size_t begin = value_of(unit_at(node));
        if (begin < table_->texts.size() && (static_cast<unsigned char>(table_->texts[begin]) & 0xC0) != 0x80) {
            out += std::string_view(table_->texts).substr(begin, table_->texts.find('\0', begin) - begin);
        }
        return true;
    }
    return false;
}

void Charsmap::append_cluster(std::string_view cluster, std::string& out, const Effort& effort) const {
    if (cluster.size() <= kLongestCluster && append_replacement(cluster, out)) {
        effort.check_size(out.size(), "normalizer");
        return;
    }
    for (std::size_t at = 0; at < cluster.size();) {
        const std::string_view character = cluster.substr(at, utf8::decode(cluster, at).length);
        if (!append_replacement(character, out)) out += character;
        effort.check_size(out.size(), "normalizer");
        at += character.size();
    }
}

void Charsmap::apply(std::string& text, Effort& effort) const {
    std::string out;
    out.reserve(text.size());
    std::size_t begin = 0;  // of the grapheme cluster
    utf8proc_int32_t state = 0;
    char32_t previous = 0;
    for (std::size_t at = 0; at < text.size();) {
        const utf8::CodePoint c = utf8::decode(text, at);
        if (at > 0 && utf8proc_grapheme_break_stateful(static_cast<utf8proc_int32_t>(previous),
                                                       static_cast<utf8proc_int32_t>(c.value), &state)) {
            append_cluster(std::string_view(text).substr(begin, at - begin), out, effort);
            begin = at;
        }
        previous = c.value;
        at += c.length;
    }
    append_cluster(std::string_view(text).substr(begin), out, effort);
    text = std::move(out);
}

}  // namespace mha2mla
