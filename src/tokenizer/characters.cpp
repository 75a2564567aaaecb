#include "characters.hpp"

#include <utf8proc.h>

#include <algorithm>
#include <array>

namespace mha2mla::characters {
namespace {

struct Range {
    char32_t first, last;
};

bool within(char32_t c, const Range& range) { return c >= range.first && c <= range.last; }

// Punctuation that Unicode 9 and later versions added or moved to P.
constexpr std::array<Range, 32> kNewerPunctuation = {{
    {0x61D, 0x61D},     {0x9FD, 0x9FD},     {0xA76, 0xA76},     {0xC77, 0xC77},     {0xC84, 0xC84},
    {0x1B7D, 0x1B7E},   {0x2E43, 0x2E4F},   {0x2E52, 0x2E5D},   {0x10EAD, 0x10EAD}, {0x10F55, 0x10F59},
    {0x10F86, 0x10F89}, {0x1144B, 0x1144F}, {0x1145A, 0x1145B}, {0x1145D, 0x1145D}, {0x11660, 0x1166C},
    {0x116B9, 0x116B9}, {0x1183B, 0x1183B}, {0x11944, 0x11946}, {0x119E2, 0x119E2}, {0x11A3F, 0x11A46},
    {0x11A9A, 0x11A9C}, {0x11A9E, 0x11AA2}, {0x11B00, 0x11B09}, {0x11C41, 0x11C45}, {0x11C70, 0x11C71},
    {0x11EF7, 0x11EF8}, {0x11F43, 0x11F4F}, {0x11FFF, 0x11FFF}, {0x12FF1, 0x12FF2}, {0x16E97, 0x16E9A},
    {0x16FE2, 0x16FE2}, {0x1E95E, 0x1E95F},
}};

constexpr std::array<Range, 8> kIdeographs = {{{0x4E00, 0x9FFF},
                                               {0x3400, 0x4DBF},
                                               {0x20000, 0x2A6DF},
                                               {0x2A700, 0x2B73F},
                                               {0x2B740, 0x2B81F},
                                               {0x2B920, 0x2CEAF},
                                               {0xF900, 0xFAFF},
                                               {0x2F800, 0x2FA1F}}};

template <std::size_t N>
bool within_any(char32_t c, const std::array<Range, N>& ranges) {
    return std::any_of(ranges.begin(), ranges.end(), [c](const Range& range) { return within(c, range); });
}

utf8proc_category_t category(char32_t c) { return utf8proc_category(static_cast<utf8proc_int32_t>(c)); }

}  // namespace

bool is_punctuation(char32_t c) {
    if (c < 0x80) {
        return within(c, {0x21, 0x2F}) || within(c, {0x3A, 0x40}) || within(c, {0x5B, 0x60}) || within(c, {0x7B, 0x7E});
    }
    if (c == 0x166D || c == 0x111C9) return true;  // which later versions moved elsewhere
    const auto kind = category(c);
    return kind >= UTF8PROC_CATEGORY_PC && kind <= UTF8PROC_CATEGORY_PO && !within_any(c, kNewerPunctuation);
}

bool is_mark(char32_t c) {
    const auto kind = category(c);
    return kind >= UTF8PROC_CATEGORY_MN && kind <= UTF8PROC_CATEGORY_ME;
}

bool is_nonspacing_mark(char32_t c) { return category(c) == UTF8PROC_CATEGORY_MN; }

bool is_control(char32_t c) {
    const auto kind = category(c);
    return kind == UTF8PROC_CATEGORY_CC || kind == UTF8PROC_CATEGORY_CF || kind == UTF8PROC_CATEGORY_CO;
}

bool is_chinese(char32_t c) { return within_any(c, kIdeographs); }

}  // namespace mha2mla::characters
