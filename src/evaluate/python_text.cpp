#include "python_text.hpp"

#include <utf8proc.h>

#include <algorithm>
#include <array>

#include "../tokenizer/utf8.hpp"

namespace mha2mla::python {
namespace {

struct Range {
    char32_t first, last;
};

template <std::size_t N>
bool in_ranges(const std::array<Range, N>& ranges, char32_t c) {
    const auto next = std::upper_bound(ranges.begin(), ranges.end(), c,
                                       [](char32_t a, const Range& range) { return a < range.first; });
    return next != ranges.begin() && c <= std::prev(next)->last;
}

/// Where Unicode 14 has no characters and 15 to 18 have letters, numbers, marks, formats or modifier symbols.
constexpr auto kNewer = std::to_array<Range>({
    {0x0558, 0x0558},   {0x058B, 0x058C},   {0x05C8, 0x05C9},   {0x088F, 0x088F},   {0x0897, 0x0897},
    {0x0B53, 0x0B54},   {0x0C5C, 0x0C5C},   {0x0CDC, 0x0CDC},   {0x0CF3, 0x0CF3},   {0x0ECE, 0x0ECE},
    {0x1ACF, 0x1AF0},   {0x1C89, 0x1C8A},   {0x208F, 0x208F},   {0x209D, 0x209F},   {0xA7CB, 0xA7CF},
    {0xA7D2, 0xA7D2},   {0xA7D4, 0xA7D4},   {0xA7DA, 0xA7F1},   {0xAB6C, 0xAB6D},   {0x105C0, 0x105F3},
    {0x107BB, 0x107BF}, {0x10940, 0x10959}, {0x10D40, 0x10D85}, {0x10EC2, 0x10EFF}, {0x1123F, 0x11241},
    {0x11380, 0x113E2}, {0x116D0, 0x116E3}, {0x11B0A, 0x11BF9}, {0x11DB0, 0x11DF1}, {0x11F00, 0x11F5A},
    {0x1246F, 0x1246F}, {0x12475, 0x1247F}, {0x12550, 0x12686}, {0x1342F, 0x1342F}, {0x13439, 0x143FA},
    {0x16100, 0x16139}, {0x16D40, 0x16D79}, {0x16EA0, 0x16ED3}, {0x16FF2, 0x16FF6}, {0x187F8, 0x187FF},
    {0x18CD6, 0x18CFF}, {0x18D09, 0x191D2}, {0x1B123, 0x1B132}, {0x1B155, 0x1B155}, {0x1B168, 0x1B168},
    {0x1CCF0, 0x1CCF9}, {0x1D127, 0x1D128}, {0x1D250, 0x1D2D3}, {0x1D6A6, 0x1D6A6}, {0x1DF1F, 0x1DFFF},
    {0x1E030, 0x1E08F}, {0x1E4D0, 0x1E6FF}, {0x2B739, 0x2B73F}, {0x2B81E, 0x2B81E}, {0x2CEA2, 0x2CEAD},
    {0x2EBF0, 0x2EE5D}, {0x31350, 0x3FC3F},
});

/// Cased characters that are not letters, and two letters without case.
constexpr auto kMoreCased = std::to_array<Range>({
    {0x00AA, 0x00AA},
    {0x00BA, 0x00BA},
    {0x2160, 0x217F},
    {0x24B6, 0x24E9},
    {0x1F130, 0x1F149},
    {0x1F150, 0x1F169},
    {0x1F170, 0x1F189},
});

/// Word_Break = MidLetter, MidNumLet or Single_Quote: such a character, as in "can't", does not end a word.
constexpr auto kInsideWords = std::to_array<Range>({
    {0x0027, 0x0027},
    {0x002E, 0x002E},
    {0x003A, 0x003A},
    {0x00B7, 0x00B7},
    {0x0387, 0x0387},
    {0x055F, 0x055F},
    {0x05F4, 0x05F4},
    {0x2018, 0x2019},
    {0x2024, 0x2024},
    {0x2027, 0x2027},
    {0xFE13, 0xFE13},
    {0xFE52, 0xFE52},
    {0xFE55, 0xFE55},
    {0xFF07, 0xFF07},
    {0xFF0E, 0xFF0E},
    {0xFF1A, 0xFF1A},
});

utf8proc_category_t category(char32_t c) {
    if (in_ranges(kNewer, c)) return UTF8PROC_CATEGORY_CN;
    return utf8proc_category(static_cast<utf8proc_int32_t>(c));
}

bool is_case_ignorable(char32_t c) {
    switch (category(c)) {
        case UTF8PROC_CATEGORY_MN:
        case UTF8PROC_CATEGORY_ME:
        case UTF8PROC_CATEGORY_CF:
        case UTF8PROC_CATEGORY_LM:
        case UTF8PROC_CATEGORY_SK:
            return true;
        default:
            return in_ranges(kInsideWords, c);
    }
}

bool is_cased(char32_t c) {
    const auto kind = category(c);
    return kind == UTF8PROC_CATEGORY_LU || kind == UTF8PROC_CATEGORY_LL || kind == UTF8PROC_CATEGORY_LT ||
           in_ranges(kMoreCased, c);
}

/// Whether the sigma at `at` ends a word: a cased character stands before it and none behind it, not counting what is
/// ignored.
bool is_final(std::u32string_view text, std::size_t at) {
    std::size_t before = at;
    while (before > 0 && is_case_ignorable(text[before - 1])) --before;
    if (before == 0 || !is_cased(text[before - 1])) return false;
    std::size_t behind = at + 1;
    while (behind < text.size() && is_case_ignorable(text[behind])) ++behind;
    return behind == text.size() || !is_cased(text[behind]);
}

}  // namespace

std::u32string decode(std::string_view text) {
    std::u32string out;
    out.reserve(text.size());
    for (std::size_t at = 0; at < text.size();) {
        const auto c = utf8::decode(text, at);
        out += c.length == 0 ? U'\uFFFD' : c.value;
        at += std::max<std::size_t>(c.length, 1);
    }
    return out;
}

bool is_space(char32_t c) { return (c >= 0x1C && c <= 0x1F) || utf8::is_white_space(c); }

bool is_word(char32_t c) {
    switch (category(c)) {
        case UTF8PROC_CATEGORY_LU:
        case UTF8PROC_CATEGORY_LL:
        case UTF8PROC_CATEGORY_LT:
        case UTF8PROC_CATEGORY_LM:
        case UTF8PROC_CATEGORY_LO:
        case UTF8PROC_CATEGORY_ND:
        case UTF8PROC_CATEGORY_NL:
        case UTF8PROC_CATEGORY_NO:
            return true;
        default:
            return c == '_';
    }
}

bool is_digit(char32_t c) { return category(c) == UTF8PROC_CATEGORY_ND; }

std::u32string lower(std::u32string_view text) {
    constexpr char32_t kSigma = 0x3A3, kFinalSigma = 0x3C2, kDottedI = 0x130, kDotAbove = 0x307;
    std::u32string out;
    out.reserve(text.size());
    for (std::size_t i = 0; i < text.size(); ++i) {
        const char32_t c = text[i];
        if (c == kDottedI) {
            out += U'i';
            out += kDotAbove;
        } else if (c == kSigma && is_final(text, i)) {
            out += kFinalSigma;
        } else if (in_ranges(kNewer, c)) {
            out += c;
        } else {
            out += static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c)));
        }
    }
    return out;
}

std::vector<std::u32string> split(std::u32string_view text) {
    std::vector<std::u32string> words;
    for (std::size_t at = 0; at < text.size();) {
        const auto begin = std::find_if_not(text.begin() + static_cast<std::ptrdiff_t>(at), text.end(), is_space);
        const auto end = std::find_if(begin, text.end(), is_space);
        if (begin != end) words.emplace_back(begin, end);
        at = static_cast<std::size_t>(end - text.begin());
    }
    return words;
}

std::vector<std::u32string> split_at(std::u32string_view text, char32_t separator) {
    std::vector<std::u32string> pieces;
    for (std::size_t at = 0;;) {
        const std::size_t end = std::min(text.find(separator, at), text.size());
        pieces.emplace_back(text.substr(at, end - at));
        if (end == text.size()) return pieces;
        at = end + 1;
    }
}

std::vector<std::u32string> numbers_in(std::u32string_view text) {
    std::vector<std::u32string> numbers;
    for (auto at = text.begin(); at != text.end();) {
        const auto begin = std::find_if(at, text.end(), is_digit);
        at = std::find_if_not(begin, text.end(), is_digit);
        if (begin != at) numbers.emplace_back(begin, at);
    }
    return numbers;
}

}  // namespace mha2mla::python
