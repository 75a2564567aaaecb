#include "normalizer.hpp"

#include <utf8proc.h>

#include "byte_level.hpp"
#include "characters.hpp"
#include "charsmap.hpp"
#include "replacement.hpp"
#include "unicode_forms.hpp"
#include "utf8.hpp"

namespace mha2mla {
namespace {

template <UnicodeForm form>
Normalizer parse_form(const JsonNode&) {
    return [](std::string& text, Effort&) { text = to_unicode_form(text, form); };
}

/// Rewrites a text character by character: `rewrite` appends what takes the place of one.
template <typename Rewrite>
void rewrite_characters(std::string& text, Rewrite rewrite) {
    std::string out;
    out.reserve(text.size());
    for (std::size_t at = 0; at < text.size();) {
        const utf8::CodePoint c = utf8::decode(text, at);
        rewrite(out, c.value);
        at += c.length;
    }
    text = std::move(out);
}

void lowercase(std::string& text) {
    rewrite_characters(text, [](std::string& out, char32_t c) {
        // U+0130 is the only character whose lower case is two characters in every language.
        if (c == 0x130) {
            out += "i\xCC\x87";
        } else {
            utf8::append(out, static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))));
        }
    });
}

Normalizer parse_lowercase(const JsonNode&) {
    return [](std::string& text, Effort&) { lowercase(text); };
}

/// Removes the characters for which `is_removed`.
void remove_characters(std::string& text, bool (*is_removed)(char32_t)) {
    rewrite_characters(text, [is_removed](std::string& out, char32_t c) {
        if (!is_removed(c)) utf8::append(out, c);
    });
}

Normalizer parse_strip_accents(const JsonNode&) {
    return [](std::string& text, Effort&) { remove_characters(text, characters::is_mark); };
}

/// Removes controls, and replaces white space by spaces.
void clean(std::string& text) {
    rewrite_characters(text, [](std::string& out, char32_t c) {
        const bool is_line_control = c == '\t' || c == '\n' || c == '\r';
        if (c == 0xFFFD || (characters::is_control(c) && !is_line_control)) return;
        utf8::append(out, utf8::is_white_space(c) ? U' ' : c);
    });
}

void isolate_chinese(std::string& text) {
    rewrite_characters(text, [](std::string& out, char32_t c) {
        if (characters::is_chinese(c)) {
            utf8::append(out += ' ', c);
            out += ' ';
        } else {
            utf8::append(out, c);
        }
    });
}

Normalizer parse_bert(const JsonNode& node) {
    const bool cleans = node.at("clean_text").boolean();
    const bool isolates = node.at("handle_chinese_chars").boolean();
    const bool lowers = node.at("lowercase").boolean();
    const bool strips = node.boolean_or("strip_accents", lowers);
    return [=](std::string& text, Effort&) {
        if (cleans) clean(text);
        if (isolates) isolate_chinese(text);
        if (strips) {
            text = to_unicode_form(text, UnicodeForm::nfd);
            remove_characters(text, characters::is_nonspacing_mark);
        }
        if (lowers) lowercase(text);
    };
}

Normalizer parse_byte_level(const JsonNode&) {
    return [](std::string& text, Effort&) {
        std::string out;
        byte_level::append_encoded(out, text);
        text = std::move(out);
    };
}

/// The rules of SentencePiece's nmt: controls are removed, and white space of all kinds becomes spaces.
Normalizer parse_nmt(const JsonNode&) {
    return [](std::string& text, Effort&) {
        rewrite_characters(text, [](std::string& out, char32_t c) {
            const auto within = [c](char32_t low, char32_t high) { return c >= low && c <= high; };
            if (within(0x01, 0x08) || c == 0x0B || within(0x0E, 0x1F) || c == 0x7F || c == 0x8F || c == 0x9F) return;
            const bool is_space = c == 0x09 || c == 0x0A || c == 0x0C || c == 0x0D || c == 0x1680 ||
                                  within(0x200B, 0x200F) || c == 0x2028 || c == 0x2029 || c == 0x2581 || c == 0xFEFF ||
                                  c == 0xFFFD;
            utf8::append(out, is_space ? U' ' : c);
        });
    };
}

Normalizer parse_precompiled(const JsonNode& node) {
    return [map = Charsmap(node.at("precompiled_charsmap"))](std::string& text, Effort& effort) {
        map.apply(text, effort);
    };
}

Normalizer parse_strip(const JsonNode& node) {
    const bool left = node.at("strip_left").boolean();
    const bool right = node.at("strip_right").boolean();
    return [left, right](std::string& text, Effort&) {
        if (right) text.resize(utf8::trailing_white_space(text));
        if (left) text.erase(0, utf8::leading_white_space(text));
    };
}

Normalizer parse_prepend(const JsonNode& node) {
    return [prefix = node.at("prepend").string()](std::string& text, Effort&) {
        if (!text.empty()) text.insert(0, prefix);
    };
}

Normalizer parse_replace(const JsonNode& node) {
    return [replacement = Replacement(node)](std::string& text, Effort& effort) {
        replacement.apply({&text, 1}, effort);
    };
}

Normalizer parse_sequence(const JsonNode& node) {
    std::vector<Normalizer> steps;
    for (const JsonNode& step : node.at("normalizers").elements()) steps.push_back(parse_normalizer(step));
    return [steps = std::move(steps)](std::string& text, Effort& effort) {
        for (const auto& step : steps) {
            step(text, effort);
            effort.check_size(text.size(), "normalizer");
        }
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
    {"StripAccents", parse_strip_accents},
    {"BertNormalizer", parse_bert},
    {"ByteLevel", parse_byte_level},
    {"Nmt", parse_nmt},
    {"Precompiled", parse_precompiled},
};

}  // namespace

Normalizer parse_normalizer(const JsonNode& node) { return parse_step(node, kKinds); }

}  // namespace mha2mla
