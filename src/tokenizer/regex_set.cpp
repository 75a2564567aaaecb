#include "regex_set.hpp"

#include <array>
#include <cctype>
#include <vector>

namespace mha2mla {
namespace {

constexpr int kMaxNestedSets = 30;
constexpr std::string_view kAnyCharacter = R"(\p{Any})";
constexpr std::string_view kNothing = "(?!)";

/// [:name:] as the content of a [...].
struct PosixClass {
    std::string_view name, set;
};
constexpr std::array<PosixClass, 11> kPosixClasses = {{
    {"alpha", R"(\p{Alphabetic})"},
    {"digit", R"(\p{Nd})"},
    {"alnum", R"(\p{Alphabetic}\p{Nd})"},
    {"upper", R"(\p{Uppercase})"},
    {"lower", R"(\p{Lowercase})"},
    {"space", kSpaces},
    {"word", kWordCharacters},
    {"punct", R"(\p{P}\p{S})"},
    {"cntrl", R"(\p{Cc})"},
    {"xdigit", "0-9A-Fa-f"},
    {"blank", R"(\t\p{Zs})"},
}};

constexpr std::array<std::string_view, 11> kBinaryProperties = {"Alphabetic", "Alpha", "White_Space", "WSpace",
                                                                "Space",      "Any",   "Lowercase",   "Lower",
                                                                "Uppercase",  "Upper", "Emoji"};

bool is_letter_or_digit(char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0; }

/// A character as a member of a [...], whatever it means there.
std::string literal(std::string_view character) {
    const bool is_ascii = character.size() == 1;
    return (is_ascii && !is_letter_or_digit(character[0]) && character[0] > ' ' ? "\\" : "") + std::string(character);
}

/// Characters that are named one by one, and sets that have to be matched by themselves.
struct Union {
    std::string members;  // the content of a [...]
    std::vector<std::string> others;

    /// An expression that matches one character of it.
    [[nodiscard]] std::string expression() const {
        if (others.empty()) return members.empty() ? std::string(kNothing) : "[" + members + "]";
        std::string out = "(?>";  // which of them matched must not be tried twice
        if (!members.empty()) out += "[" + members + "]|";
        for (std::size_t i = 0; i < others.size(); ++i) out += (i > 0 ? "|" : "") + others[i];
        return out + ")";
    }
};

std::string complement(const std::string& expression) {
    return "(?:(?!" + expression + ")" + std::string(kAnyCharacter) + ")";
}

class SetReader {
public:
    SetReader(std::string_view in, std::size_t at, bool ignores_case, const Refuse& refuse)
        : in_(in), at_(at), ignores_case_(ignores_case), refuse_(refuse) {}

    /// Reads a set from its [ to its ]. A set that is only a union is added to `parent`, if that is given.
    std::string read(Union* parent, int depth) {
        if (depth > kMaxNestedSets) refuse_("sets nested deeper than 30");
        ++at_;
        const bool negated = peek(0) == '^';
        if (negated) ++at_;
        std::vector<Union> parts(1);  // of which && takes what they share
        // A ] at the start is a member of the set, if another ] ends it.
        if (peek(0) == ']') parts.back().members += literal(take(1));
        while (peek(0) != ']') {
            if (at_ >= in_.size()) refuse_("a [ without ]");
            if (peek(0) == '&' && peek(1) == '&') {
                parts.emplace_back();
                at_ += 2;
            } else {
                item(parts.back(), depth);
            }
        }
        ++at_;
        // Oniguruma ignores case in the result, and PCRE2 in each part.
        const bool is_simple = parts.size() == 1 && (depth == 1 || !negated);
        if (!is_simple && ignores_case_) refuse_("&& or a negated set inside a set together with (?i)");
        if (parts.size() > 1) {
            std::string shared = "(?:";
            for (std::size_t i = 0; i + 1 < parts.size(); ++i) shared += "(?=" + parts[i].expression() + ")";
            shared += parts.back().expression() + ")";
            return negated ? complement(shared) : shared;
        }
        const Union& only = parts.front();
        if (!negated && parent != nullptr) {
            parent->members += only.members;
            parent->others.insert(parent->others.end(), only.others.begin(), only.others.end());
            return "";
        }
        if (!negated) return only.expression();
        if (only.others.empty() && !only.members.empty()) return "[^" + only.members + "]";
        return complement(only.expression());
    }

    [[nodiscard]] std::size_t end() const { return at_; }

private:
    [[nodiscard]] char peek(std::size_t ahead) const { return at_ + ahead < in_.size() ? in_[at_ + ahead] : '\0'; }

    std::string_view take(std::size_t count) {
        const std::string_view taken = in_.substr(at_, count);
        at_ += taken.size();
        return taken;
    }

    void item(Union& to, int depth) {
        if (peek(0) == '[' && peek(1) == ':' && posix_class(to)) return;
        if (peek(0) == '[') {
            const std::string inner = read(&to, depth + 1);
            if (!inner.empty()) to.others.push_back(inner);
            return;
        }
        if (peek(0) == '\\' && class_escape(to)) return;
        const std::string low = character();
        // A - is a range unless something other than a character follows.
        const bool is_range = peek(0) == '-' && peek(1) != ']' && peek(1) != '[' && at_ + 1 < in_.size() &&
                              !(peek(1) == '&' && peek(2) == '&') && !is_class_escape(at_ + 1);
        to.members += low;
        if (!is_range) return;
        ++at_;
        to.members += "-" + character();
    }

    bool posix_class(Union& to) {
        const std::size_t close = in_.find(":]", at_ + 2);
        if (close == std::string_view::npos) return false;
        std::string_view name = in_.substr(at_ + 2, close - at_ - 2);
        const bool negated = name.starts_with('^');
        if (negated) name.remove_prefix(1);
        for (const PosixClass& known : kPosixClasses) {
            if (known.name != name) continue;
            at_ = close + 2;
            add(to, known.set, negated);
            return true;
        }
        refuse_("the class [:" + std::string(name) + ":]");
        return false;
    }

    static void add(Union& to, std::string_view set, bool negated) {
        if (!negated) {
            to.members += set;
        } else {
            to.others.push_back("[^" + std::string(set) + "]");
        }
    }

    [[nodiscard]] bool is_class_escape(std::size_t at) const {
        return at + 1 < in_.size() && in_[at] == '\\' &&
               std::string_view("sSwWhHdDpPRXGKQEyY").find(in_[at + 1]) != std::string_view::npos;
    }

    /// Reads \s and the like. @return false for the escape of one character.
    bool class_escape(Union& to) {
        if (!is_class_escape(at_)) return false;
        const char c = peek(1);
        if (c == 'p' || c == 'P') {
            if (peek(2) != '{') refuse_("\\p without {");
            to.members += translate_property(in_, at_, refuse_);
            return true;
        }
        const char lower = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
        const std::string_view set = lower == 's'   ? kSpaces
                                     : lower == 'w' ? kWordCharacters
                                     : lower == 'h' ? kHexDigits
                                     : lower == 'd' ? R"(\p{Nd})"
                                                    : std::string_view();
        if (set.empty()) refuse_(std::string("\\") + c + " inside [...]");
        at_ += 2;
        add(to, set, c != lower);
        return true;
    }

    /// A character, as it is written in a [...] of PCRE2.
    std::string character() {
        if (peek(0) != '\\') {
            std::size_t size = 1;
            while ((static_cast<unsigned char>(peek(size)) & 0xC0) == 0x80) ++size;
            return literal(take(size));
        }
        const char c = peek(1);
        if (c == 'u') {
            const std::string_view digits = in_.substr(at_ + 2, 4);
            if (digits.size() != 4 || digits.find_first_not_of("0123456789ABCDEFabcdef") != std::string_view::npos) {
                refuse_("\\u without four hexadecimal digits");
            }
            at_ += 6;
            return "\\x{" + std::string(digits) + "}";
        }
        if (c == 'x' && peek(2) == '{') {
            const std::size_t close = in_.find('}', at_);
            if (close == std::string_view::npos) refuse_("an unfinished \\x{");
            return std::string(take(close + 1 - at_));
        }
        if (c == 'x' || (c >= '0' && c <= '7')) {
            std::size_t size = 2;
            while (size < 4 && std::isxdigit(static_cast<unsigned char>(peek(size))) != 0 &&
                   (c == 'x' || (peek(size) >= '0' && peek(size) <= '7'))) {
                ++size;
            }
            return std::string(take(size));
        }
        if (std::string_view("tnrfvaeb").find(c) != std::string_view::npos && c != '\0') {
            const std::string_view taken = take(2);
            return c == 'v' ? "\\x0B" : std::string(taken);  // \v is a class in PCRE2
        }
        if (is_letter_or_digit(c) || c == '\0') refuse_(std::string("\\") + c + " inside [...]");
        ++at_;
        std::size_t size = 1;
        while ((static_cast<unsigned char>(peek(size)) & 0xC0) == 0x80) ++size;
        return literal(take(size));
    }

    std::string_view in_;
    std::size_t at_;
    bool ignores_case_;
    const Refuse& refuse_;
};

}  // namespace

std::string translate_property(std::string_view pattern, std::size_t& at, const Refuse& refuse) {
    const std::size_t close = pattern.find('}', at);
    if (close == std::string_view::npos) refuse("an unfinished \\p{");
    std::string_view name = pattern.substr(at + 3, close - at - 3);
    const bool negated = name.starts_with('^');
    if (negated) name.remove_prefix(1);
    bool is_script = name.size() > 2 && name.find_first_of(":=") == std::string_view::npos;
    for (const auto property : kBinaryProperties) is_script = is_script && name != property;
    std::string out = "\\";
    out += pattern[at + 1];
    out.append("{").append(negated ? "^" : "").append(is_script ? "sc:" : "").append(name) += '}';
    at = close + 1;
    return out;
}

std::string translate_set(std::string_view pattern, std::size_t& at, bool ignores_case, const Refuse& refuse) {
    SetReader reader(pattern, at, ignores_case, refuse);
    std::string out = reader.read(nullptr, 1);
    at = reader.end();
    return out;
}

}  // namespace mha2mla
