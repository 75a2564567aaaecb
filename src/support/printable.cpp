#include "mha2mla/printable.hpp"

#include <algorithm>
#include <array>
#include <cstdint>

namespace mha2mla {
namespace {

struct Range {
    std::uint32_t first, last;
};
/// What a terminal or a browser obeys instead of showing it.
constexpr std::array<Range, 8> kObeyed = {{
    {0x00, 0x1F},        // C0
    {0x7F, 0x9F},        // DEL, C1
    {0x061C, 0x061C},    // Arabic letter mark
    {0x200B, 0x200F},    // of no width, and marks of direction
    {0x2028, 0x202E},    // separators of lines, embeddings and overrides of direction
    {0x2060, 0x206F},    // of no width, and isolates of direction
    {0xFEFF, 0xFEFF},    // byte order mark
    {0xE0000, 0xE007F},  // tags
}};

/// The bytes of the UTF-8 character that `text` begins with; 0 if it begins with none.
std::size_t character_size(std::string_view text, std::uint32_t& code) {
    const auto byte = [&](std::size_t i) { return static_cast<std::uint32_t>(static_cast<unsigned char>(text[i])); };
    const std::uint32_t first = byte(0);
    if (first < 0x80) {
        code = first;
        return 1;
    }
    const std::size_t size = first >= 0xF5 ? 0 : first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : first >= 0xC2 ? 2 : 0;
    if (size == 0 || text.size() < size) return 0;
    code = first & (0x7FU >> size);
    for (std::size_t i = 1; i < size; ++i) {
        if ((byte(i) & 0xC0U) != 0x80) return 0;
        code = code << 6U | (byte(i) & 0x3FU);
    }
    constexpr std::array<std::uint32_t, 5> kLeast = {0, 0, 0x80, 0x800, 0x10000};
    const bool surrogate = code >= 0xD800 && code <= 0xDFFF;
    return code < kLeast.at(size) || code > 0x10FFFF || surrogate ? 0 : size;
}

}  // namespace

std::string printable(std::string_view text) {
    std::string shown;
    shown.reserve(text.size());
    while (!text.empty()) {
        std::uint32_t code = 0;
        const std::size_t size = character_size(text, code);
        const bool obeyed =
            std::ranges::any_of(kObeyed, [&](const Range& range) { return code >= range.first && code <= range.last; });
        if (size == 0 || obeyed) {
            shown += '?';
        } else {
            shown += text.substr(0, size);
        }
        text.remove_prefix(std::max<std::size_t>(size, 1));
    }
    return shown;
}

std::string shortened(std::string_view text, std::size_t most) {
    constexpr std::string_view kGap = " ... ";
    if (text.size() <= most) return std::string(text);
    const std::size_t end = most / 4;
    const auto continues = [&](std::size_t at) { return (static_cast<unsigned char>(text[at]) & 0xC0U) == 0x80; };
    std::size_t begins = most - end - kGap.size();
    while (begins > 0 && continues(begins)) --begins;
    std::size_t resumes = text.size() - end;
    while (resumes < text.size() && continues(resumes)) ++resumes;
    return std::string(text.substr(0, begins)) + std::string(kGap) + std::string(text.substr(resumes));
}

}  // namespace mha2mla
