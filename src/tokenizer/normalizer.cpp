#include "normalizer.hpp"

#include <utf8proc.h>

#include "replacement.hpp"
#include "unicode_forms.hpp"
#include "utf8.hpp"

namespace mha2mla {
namespace {

template <UnicodeForm form>
Normalizer parse_form(const JsonNode&) {
    return [](std::string& text) { text = to_unicode_form(text, form); };
}

Normalizer parse_lowercase(const JsonNode&) {
    return [](std::string& text) {
        std::string out;
        out.reserve(text.size());
        for (std::size_t at = 0; at < text.size();) {
            const utf8::CodePoint c = utf8::decode(text, at);
            // U+0130 is the only character whose lower case is two characters in every language.
            if (c.value == 0x130) {
                out += "i\xCC\x87";
            } else {
                utf8::append(out, static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c.value))));
            }
            at += c.length;
        }
        text = std::move(out);
    };
}

Normalizer parse_strip(const JsonNode& node) {
    const bool left = node.at("strip_left").boolean();
    const bool right = node.at("strip_right").boolean();
    return [left, right](std::string& text) {
        if (right) text.resize(utf8::trailing_white_space(text));
        if (left) text.erase(0, utf8::leading_white_space(text));
    };
}

Normalizer parse_prepend(const JsonNode& node) {
    return [prefix = node.at("prepend").string()](std::string& text) {
        if (!text.empty()) text.insert(0, prefix);
    };
}

Normalizer parse_replace(const JsonNode& node) {
    return [replacement = Replacement(node)](std::string& text) { replacement.apply({&text, 1}); };
}

Normalizer parse_sequence(const JsonNode& node) {
    std::vector<Normalizer> steps;
    for (const JsonNode& step : node.at("normalizers").elements()) steps.push_back(parse_normalizer(step));
    return [steps = std::move(steps)](std::string& text) {
        for (const auto& step : steps) step(text);
    };
}

constexpr StepKind<Normalizer> kKinds[] = {
    {"Sequence", parse_sequence},
    {"NFC", parse_form<UnicodeForm::nfc>},
    {"NFD", parse_form<UnicodeForm::nfd>},
    {"NFKC", parse_form<UnicodeForm::nfkc>},
    {"NFKD", parse_form<UnicodeForm::nfkd>},
    {"Lowercase", parse_lowercase},
    {"Strip", parse_strip},
    {"Prepend", parse_prepend},
    {"Replace", parse_replace},
};

}  // namespace

Normalizer parse_normalizer(const JsonNode& node) { return parse_step(node, kKinds); }

}  // namespace mha2mla
