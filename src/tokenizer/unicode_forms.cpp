#include "unicode_forms.hpp"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <vector>

#include "mha2mla/error.hpp"
#include "utf8.hpp"

namespace mha2mla {
namespace {

struct DecomposedChar {
    utf8proc_int32_t value;
    utf8proc_propval_t combining_class;
};

void decompose(char32_t c, utf8proc_option_t options, std::vector<DecomposedChar>& out) {
    constexpr std::size_t kLongest = 32;  // the longest decomposition in Unicode has 18 characters
    std::array<utf8proc_int32_t, kLongest> parts{};
    int boundary_class = 0;
    const auto count = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(c), parts.data(),
                                               static_cast<utf8proc_ssize_t>(parts.size()), options, &boundary_class);
    if (count < 0 || static_cast<std::size_t>(count) > parts.size()) {
        throw Error(ErrorCode::format, "a character of the text cannot be decomposed; is it valid UTF-8?");
    }
    for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) {
        out.push_back({parts[i], utf8proc_get_property(parts[i])->combining_class});
    }
}

/// Sorts each run of combining marks. The library's own sorting is quadratic in the length of a run.
void order_marks(std::vector<DecomposedChar>& chars) {
    const auto is_starter = [](const DecomposedChar& c) { return c.combining_class == 0; };
    for (auto begin = chars.begin(); begin != chars.end();) {
        begin = std::find_if_not(begin, chars.end(), is_starter);
        const auto end = std::find_if(begin, chars.end(), is_starter);
        std::stable_sort(begin, end,
                         [](const auto& a, const auto& b) { return a.combining_class < b.combining_class; });
        begin = end;
    }
}

}  // namespace

std::string to_unicode_form(std::string_view text, UnicodeForm form) {
    const auto is_ascii = [](char c) { return static_cast<unsigned char>(c) < 0x80; };
    if (std::all_of(text.begin(), text.end(), is_ascii)) return std::string(text);

    const bool compatible = form == UnicodeForm::nfkc || form == UnicodeForm::nfkd;
    const bool compose = form == UnicodeForm::nfc || form == UnicodeForm::nfkc;
    const auto options =
        static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | (compatible ? UTF8PROC_COMPAT : 0));
    std::vector<DecomposedChar> chars;
    chars.reserve(text.size());
    for (std::size_t at = 0; at < text.size();) {
        const utf8::CodePoint c = utf8::decode(text, at);
        decompose(c.value, options, chars);
        at += c.length;
    }
    order_marks(chars);

    std::vector<utf8proc_int32_t> values(chars.size());
    std::transform(chars.begin(), chars.end(), values.begin(), [](const DecomposedChar& c) { return c.value; });
    auto length = static_cast<utf8proc_ssize_t>(values.size());
    if (compose) {
        length = utf8proc_normalize_utf32(values.data(), length,
                                          static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
    }
    std::string out;
    out.reserve(text.size());
    for (utf8proc_ssize_t i = 0; i < length; ++i)
        utf8::append(out, static_cast<char32_t>(values[static_cast<std::size_t>(i)]));
    return out;
}

}  // namespace mha2mla
