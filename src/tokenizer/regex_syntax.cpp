/// Translation of regular expressions from Oniguruma's Ruby syntax to that of PCRE2.

#include <array>
#include <cctype>

#include "regex.hpp"

namespace mha2mla {
namespace {

/// The characters of an escape, as the content of a [...].
struct Shorthand {
    char escape;
    std::string_view set;
};

// PCRE2's own \s has U+180E, which is not White_Space; its \w lacks marks (before 10.43); its \h is a blank, but
// Ruby's is a hexadecimal digit.
constexpr Shorthand kShorthands[] = {
    {'s', R"(\p{White_Space})"},
    {'w', R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc})"},
    {'h', "0-9A-Fa-f"},
};

constexpr std::string_view kBinaryProperties[] = {"Alphabetic", "Alpha", "White_Space", "WSpace", "Space", "Any",
                                                  "Lowercase",  "Lower", "Uppercase",   "Upper",  "Emoji"};

class Translator {
public:
    Translator(std::string_view pattern, const JsonNode& node) : in_(pattern), node_(node) {}

    std::string run() {
        while (at_ < in_.size()) {
            const char c = in_[at_];
            if (c == '\\') {
                escape();
            } else if (in_set_) {
                inside_set(c);
            } else {
                outside(c);
            }
        }
        return std::move(out_);
    }

private:
    [[noreturn]] void refuse(std::string_view what) const {
        node_.fail(ErrorCode::unsupported, "the regular expression " + in_quotes(in_) + " uses " + std::string(what) +
                                               ", which has no equivalent in PCRE2; rewrite it");
    }

    char peek(std::size_t ahead) const { return at_ + ahead < in_.size() ? in_[at_ + ahead] : '\0'; }

    void copy(std::size_t count) {
        out_ += in_.substr(at_, count);
        at_ += count;
    }

    void outside(char c) {
        if (c == '[') {
            in_set_ = true;
            copy(peek(1) == '^' ? 2 : 1);
            if (peek(0) == ']') copy(1);  // a literal ]
        } else if (c == '{') {
            interval();
        } else if (c == '(' && peek(1) == '?') {
            group_flags();
        } else {
            copy(1);
        }
    }

    /// Ruby's (?m), which makes the dot match line ends, is (?s) in PCRE2.
    void group_flags() {
        copy(2);
        for (; peek(0) == '-' || std::isalpha(static_cast<unsigned char>(peek(0))) != 0; ++at_) {
            if (peek(0) == 's') refuse("(?s)");
            out_ += peek(0) == 'm' ? 's' : peek(0);
        }
    }

    /// {n,m} is the same in both, but a + after it repeats it in Ruby and makes it possessive in PCRE2.
    void interval() {
        const std::size_t close = in_.find('}', at_);
        const std::string_view body = close == std::string_view::npos ? "" : in_.substr(at_ + 1, close - at_ - 1);
        const bool is_interval = !body.empty() && body.find_first_not_of("0123456789,") == std::string_view::npos;
        if (!is_interval) return copy(1);
        copy(body.size() + 2);
        if (peek(0) == '+') refuse("a + after {n,m}");
    }

    void inside_set(char c) {
        if (c == '[' && peek(1) != ':') refuse("a set inside a set (write \\[ for the character)");
        if (c == '[') {
            const std::size_t close = in_.find(":]", at_ + 2);
            if (close == std::string_view::npos) refuse("an unfinished [:class:]");
            return copy(close + 2 - at_);
        }
        if (c == '&' && peek(1) == '&') refuse("the intersection && of sets");
        if (c == ']') in_set_ = false;
        copy(1);
    }

    void escape() {
        const char c = peek(1);
        const char lower = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
        for (const auto& [letter, set] : kShorthands) {
            if (lower == letter) return shorthand(c != lower, set);
        }
        if (lower == 'b' && !in_set_) return word_boundary(c == 'B');
        if (lower == 'p' && peek(2) == '{') return property();
        if (c == 'u') return hex_escape();
        if (c == 'R' || c == 'X' || c == 'G' || c == 'K' || c == 'Q' || c == 'E' || c == 'y' || c == 'Y') {
            refuse(std::string("\\") + c);
        }
        copy(2);
    }

    void shorthand(bool negated, std::string_view set) {
        at_ += 2;
        if (!in_set_) {
            (out_ += negated ? "[^" : "[").append(set) += ']';
        } else if (!negated) {
            out_ += set;
        } else if (set == kShorthands[0].set) {
            out_ += R"(\P{White_Space})";
        } else {
            refuse("\\W or \\H inside [...]");
        }
    }

    void word_boundary(bool negated) {
        at_ += 2;
        const std::string word = "[" + std::string(kShorthands[1].set) + "]";
        out_ += negated ? "(?:(?<=" + word + ")(?=" + word + ")|(?<!" + word + ")(?!" + word + "))"
                        : "(?:(?<=" + word + ")(?!" + word + ")|(?<!" + word + ")(?=" + word + "))";
    }

    /// Names of one or two letters are general categories; others are scripts or one of a few binary properties.
    void property() {
        const std::size_t close = in_.find('}', at_);
        if (close == std::string_view::npos) refuse("an unfinished \\p{");
        std::string_view name = in_.substr(at_ + 3, close - at_ - 3);
        const bool negated = name.starts_with('^');
        if (negated) name.remove_prefix(1);
        bool is_script = name.size() > 2 && name.find_first_of(":=") == std::string_view::npos;
        for (const auto property : kBinaryProperties) is_script = is_script && name != property;
        out_.append("\\") += peek(1);
        out_.append("{").append(negated ? "^" : "").append(is_script ? "sc:" : "").append(name) += '}';
        at_ = close + 1;
    }

    /// \uHHHH
    void hex_escape() {
        const std::string_view digits = in_.substr(at_ + 2, 4);
        if (digits.size() != 4 || digits.find_first_not_of("0123456789ABCDEFabcdef") != std::string_view::npos) {
            refuse("\\u without four hexadecimal digits");
        }
        out_.append("\\x{").append(digits) += '}';
        at_ += 6;
    }

    std::string_view in_;
    const JsonNode& node_;
    std::size_t at_ = 0;
    bool in_set_ = false;
    std::string out_;
};

}  // namespace

std::string translate_regex(std::string_view pattern, const JsonNode& node) { return Translator(pattern, node).run(); }

}  // namespace mha2mla
