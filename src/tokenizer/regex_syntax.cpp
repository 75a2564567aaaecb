/// Translation of regular expressions from Oniguruma's Ruby syntax to that of PCRE2.

#include <cctype>
#include <vector>

#include "regex.hpp"
#include "regex_set.hpp"

namespace mha2mla {
namespace {

/// An escape, and the content of a [...] that means the same.
struct Shorthand {
    char escape;
    std::string_view set;
};

constexpr Shorthand kShorthands[] = {{'s', kSpaces}, {'w', kWordCharacters}, {'h', kHexDigits}};

class Translator {
public:
    Translator(std::string_view pattern, const JsonNode& node) : in_(pattern), node_(node) {}

    std::string run() {
        while (at_ < in_.size()) {
            const char c = in_[at_];
            if (c == '\\') {
                escape();
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
            out_ += translate_set(in_, at_, ignores_case_, refusal_);
        } else if (c == '^') {
            ++at_;
            out_ += R"((?:\A|(?<=\n)(?=\p{Any})))";  // the part of a text that is matched may end behind a \n
        } else if (c == '{') {
            interval();
        } else if (c == '(') {
            open_groups_.push_back(out_.size());
            peek(1) == '?' ? group_flags() : copy(1);
        } else if (c == ')') {
            close_group();
        } else {
            copy(1);
        }
    }

    /// Calls of groups have no limit on their work. Ruby's (?m), which makes the dot match line ends, is (?s) in PCRE2.
    void group_flags() {
        const bool is_relative = peek(2) == '-' && std::isdigit(static_cast<unsigned char>(peek(3))) != 0;
        if (is_relative ||
            (peek(2) != '\0' && std::string_view("R&P+0123456789").find(peek(2)) != std::string_view::npos)) {
            refuse("the call of a group or a (?P");
        }
        copy(2);
        for (; peek(0) == '-' || std::isalpha(static_cast<unsigned char>(peek(0))) != 0; ++at_) {
            if (peek(0) == 's') refuse("(?s)");
            ignores_case_ = ignores_case_ || peek(0) == 'i';
            out_ += peek(0) == 'm' ? 's' : peek(0);
        }
    }

    /// PCRE2's machine code counts the steps of repeats, but not those of a repeated group; such a group is given a
    /// repeat that matches nothing.
    void close_group() {
        copy(1);
        if (open_groups_.empty()) return;  // which PCRE2 will say
        const std::size_t begin = open_groups_.back();
        open_groups_.pop_back();
        if (peek(0) != '*' && peek(0) != '+' && peek(0) != '{') return;
        out_.insert(begin, R"((?:\P{Any}?+)");
        out_ += ')';
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

    void escape() {
        const char c = peek(1);
        const char lower = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
        for (const auto& [letter, set] : kShorthands) {
            if (lower != letter) continue;
            at_ += 2;
            out_.append(c != lower ? "[^" : "[").append(set) += ']';
            return;
        }
        if (lower == 'b') return word_boundary(c == 'B');
        if (lower == 'p' && peek(2) == '{') {
            out_ += translate_property(in_, at_, refusal_);
            return;
        }
        if (c == 'u') return hex_escape();
        if (c == 'R' || c == 'X' || c == 'G' || c == 'K' || c == 'Q' || c == 'E' || c == 'y' || c == 'Y' || c == 'g') {
            refuse(std::string("\\") + c);
        }
        copy(2);
    }

    void word_boundary(bool negated) {
        at_ += 2;
        const std::string word = "[" + std::string(kWordCharacters) + "]";
        out_ += negated ? "(?:(?<=" + word + ")(?=" + word + ")|(?<!" + word + ")(?!" + word + "))"
                        : "(?:(?<=" + word + ")(?!" + word + ")|(?<!" + word + ")(?=" + word + "))";
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
    bool ignores_case_ = false;  // somewhere before
    Refuse refusal_ = [this](std::string_view what) { refuse(what); };
    std::string out_;
    std::vector<std::size_t> open_groups_;  // where they begin in out_
};

}  // namespace

std::string translate_regex(std::string_view pattern, const JsonNode& node) { return Translator(pattern, node).run(); }

}  // namespace mha2mla
