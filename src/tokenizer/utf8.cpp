#include "utf8.hpp"

#include <utf8proc.h>

namespace mha2mla::utf8 {
namespace {

constexpr char32_t kReplacement = 0xFFFD;

/// The properties of a character that its first byte determines: the number of bytes that follow, and the range of the
/// second byte, which excludes overlong forms and surrogates.
struct Lead {
    std::size_t length;
    unsigned char low, high;
};

Lead lead(unsigned char byte) {
    if (byte < 0x80) return {1, 0, 0};
    if (byte < 0xC2) return {0, 0, 0};
    if (byte < 0xE0) return {2, 0x80, 0xBF};
    if (byte == 0xE0) return {3, 0xA0, 0xBF};
    if (byte == 0xED) return {3, 0x80, 0x9F};
    if (byte < 0xF0) return {3, 0x80, 0xBF};
    if (byte == 0xF0) return {4, 0x90, 0xBF};
    if (byte < 0xF4) return {4, 0x80, 0xBF};
    if (byte == 0xF4) return {4, 0x80, 0x8F};
    return {0, 0, 0};
}

/// The number of bytes from `at` that form a character or the beginning of one; 0 if no character starts there.
std::size_t well_formed_prefix(std::string_view text, std::size_t at) {
    const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[at + i]); };
    const Lead first = lead(byte(0));
    std::size_t length = first.length == 0 ? 0 : 1;
    while (length < first.length && at + length < text.size()) {
        const unsigned char low = length == 1 ? first.low : 0x80;
        const unsigned char high = length == 1 ? first.high : 0xBF;
        if (byte(length) < low || byte(length) > high) break;
        ++length;
    }
    return length;
}

}  // namespace

CodePoint decode(std::string_view text, std::size_t at) {
    const auto byte = static_cast<unsigned char>(text[at]);
    if (byte < 0x80) return {byte, 1};
    const std::size_t length = lead(byte).length;
    if (length == 0 || well_formed_prefix(text, at) != length) return {};
    char32_t value = byte & (0x7Fu >> length);
    for (std::size_t i = 1; i < length; ++i) {
        value = (value << 6) | (static_cast<unsigned char>(text[at + i]) & 0x3Fu);
    }
    return {value, length};
}

std::optional<std::size_t> find_invalid(std::string_view text) {
    for (std::size_t at = 0; at < text.size();) {
        const std::size_t length = decode(text, at).length;
        if (length == 0) return at;
        at += length;
    }
    return std::nullopt;
}

std::size_t end_of_part(std::string_view text, std::size_t from, std::size_t bytes) {
    if (bytes >= text.size() - from) return text.size();
    std::size_t end = from + bytes;
    while (end < text.size() && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) ++end;
    return end;
}

bool is_unfinished(std::string_view bytes) {
    return !bytes.empty() && well_formed_prefix(bytes, 0) == bytes.size() &&
           bytes.size() < lead(static_cast<unsigned char>(bytes[0])).length;
}

void append(std::string& out, char32_t value) {
    const auto put = [&](char32_t byte) { out += static_cast<char>(static_cast<unsigned char>(byte)); };
    if (value < 0x80) {
        put(value);
    } else if (value < 0x800) {
        put(0xC0 | (value >> 6));
        put(0x80 | (value & 0x3F));
    } else if (value < 0x10000) {
        put(0xE0 | (value >> 12));
        put(0x80 | ((value >> 6) & 0x3F));
        put(0x80 | (value & 0x3F));
    } else {
        put(0xF0 | (value >> 18));
        put(0x80 | ((value >> 12) & 0x3F));
        put(0x80 | ((value >> 6) & 0x3F));
        put(0x80 | (value & 0x3F));
    }
}

std::string replace_invalid(std::string_view bytes) {
    std::string out;
    out.reserve(bytes.size());
    for (std::size_t at = 0; at < bytes.size();) {
        if (const CodePoint c = decode(bytes, at); c.length != 0) {
            out.append(bytes, at, c.length);
            at += c.length;
            continue;
        }
        if (is_unfinished(bytes.substr(at))) {
            out.append(bytes, at);
            break;
        }
        append(out, kReplacement);
        at += std::max<std::size_t>(well_formed_prefix(bytes, at), 1);
    }
    return out;
}

bool is_white_space(char32_t c) {
    return (c >= 0x09 && c <= 0x0D) || c == ' ' || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

bool is_word(char32_t c) {
    // Alphabetic characters other than letters and letter numbers: circled and squared Latin letters, whose category is
    // symbol.
    const auto within = [c](char32_t low, char32_t high) { return c >= low && c <= high; };
    if (within(0x24B6, 0x24E9) || within(0x1F130, 0x1F149) || within(0x1F150, 0x1F169) || within(0x1F170, 0x1F189)) {
        return true;
    }
    if (c == 0x200C || c == 0x200D) return true;
    switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
        case UTF8PROC_CATEGORY_LU:
        case UTF8PROC_CATEGORY_LL:
        case UTF8PROC_CATEGORY_LT:
        case UTF8PROC_CATEGORY_LM:
        case UTF8PROC_CATEGORY_LO:
        case UTF8PROC_CATEGORY_MN:
        case UTF8PROC_CATEGORY_MC:
        case UTF8PROC_CATEGORY_ME:
        case UTF8PROC_CATEGORY_ND:
        case UTF8PROC_CATEGORY_NL:
        case UTF8PROC_CATEGORY_PC:
            return true;
        default:
            return false;
    }
}

namespace {

/// The last character of a valid, non-empty text.
CodePoint last_of(std::string_view text) {
    std::size_t at = text.size() - 1;
    while (at > 0 && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80) --at;
    return decode(text, at);
}

}  // namespace

std::size_t leading_white_space(std::string_view text) {
    std::size_t at = 0;
    while (at < text.size()) {
        const CodePoint c = decode(text, at);
        if (!is_white_space(c.value)) break;
        at += c.length;
    }
    return at;
}

std::size_t trailing_white_space(std::string_view text) {
    while (!text.empty()) {
        const CodePoint c = last_of(text);
        if (!is_white_space(c.value)) break;
        text.remove_suffix(c.length);
    }
    return text.size();
}

bool starts_with_word(std::string_view text) { return !text.empty() && is_word(decode(text, 0).value); }

bool ends_with_word(std::string_view text) { return !text.empty() && is_word(last_of(text).value); }

}  // namespace mha2mla::utf8
