#pragma once
/// Regular expressions as the Rust tokenizers library understands them (Oniguruma's Ruby syntax), run by PCRE2.

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "json_node.hpp"

namespace mha2mla {

/// A stretch of a text and whether the pattern matched it.
struct Match {
    std::size_t begin = 0;
    std::size_t end = 0;
    bool matched = false;
};

/// An immutable compiled pattern. Copies share it.
class Regex {
public:
    /// What matching needs besides the pattern. Make one for a series of texts; each thread needs its own.
    class Run;

    /// Compiles `pattern`, which is written at `node`.
    /// @throws Error{unsupported} if PCRE2 has no equal for it.
    Regex(std::string_view pattern, const JsonNode& node);

    /// Reads {"String": ...}, which is matched as it is, or {"Regex": ...}.
    /// @throws Error{unsupported} also for an empty pattern.
    [[nodiscard]] static Regex parse(const JsonNode& node);

private:
    struct Code;
    Regex() = default;
    static Regex compile(std::string_view pattern, std::string_view shown, unsigned options, const JsonNode& node);

    std::shared_ptr<const Code> code_;
};

class Regex::Run {
public:
    explicit Run(const Regex& regex);
    ~Run();
    Run(const Run&) = delete;
    Run& operator=(const Run&) = delete;

    /// Cuts `text` (valid UTF-8) into stretches that match and the stretches between them; together they are the text.
    /// Empty matches are listed too, except right behind another match. What was in `out` is lost.
    /// @throws Error{unsupported} if the engine gives up for want of stack or after too many steps.
    void split(std::string_view text, std::vector<Match>& out);

private:
    struct Resources;
    std::shared_ptr<const Code> code_;
    std::unique_ptr<Resources> resources_;
};

/// `pattern` in PCRE2's syntax, with the same meaning. The differences that matter: what \s, \w, \b and \h stand for,
/// that \p{Han} is about scripts and not script extensions, and the set operations inside of [...] that PCRE2 does
/// not have.
/// @throws Error{unsupported} through `node` for what cannot be said in PCRE2.
[[nodiscard]] std::string translate_regex(std::string_view pattern, const JsonNode& node);

}  // namespace mha2mla
