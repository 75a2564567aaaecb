#pragma once
/// Regular expressions in the syntax of the Rust tokenizers library (Oniguruma's Ruby syntax), executed by PCRE2.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "effort.hpp"
#include "json_node.hpp"

namespace mha2mla {

/// A part of a text, and whether the pattern matched it.
struct Match {
    std::size_t begin = 0;
    std::size_t end = 0;
    bool matched = false;
};

/// An immutable compiled pattern. Copies share it.
class Regex {
public:
    /// Working memory for matching. Use one for a series of texts; each thread needs its own.
    class Run;

    /// Compiles `pattern`, which is written at `node`.
    /// @throws Error{unsupported} if PCRE2 has no equivalent.
    Regex(std::string_view pattern, const JsonNode& node);

    /// Reads {"String": ...}, which is matched literally, or {"Regex": ...}.
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
    /// `effort` must outlive the run.
    Run(const Regex& regex, Effort& effort);
    ~Run();
    Run(const Run&) = delete;
    Run& operator=(const Run&) = delete;

    /// Splits `text` (valid UTF-8) into the parts that match and the parts between them; their concatenation is the
    /// text. Empty matches are included unless they directly follow another match. Overwrites `out`.
    /// @throws Error{unsupported} if the engine runs out of stack or exceeds its limits of steps.
    void split(std::string_view text, std::vector<Match>& out);

private:
    struct Resources;
    struct Found {
        std::size_t begin, end;
    };
    struct Meter;
    enum class Cost : std::uint8_t { free, metered };
    [[nodiscard]] int match(Cost cost, std::string_view text, std::size_t from, std::size_t end);
    [[noreturn]] void fail(std::size_t from, const std::string& why) const;
    [[nodiscard]] Found found() const;
    [[nodiscard]] std::optional<Found> find(std::string_view text, std::size_t from);
    [[nodiscard]] std::optional<Found> find_here(std::string_view text, std::size_t from);

    std::shared_ptr<const Code> code_;
    Effort* effort_;
    std::unique_ptr<Resources> resources_;
};

/// Translates `pattern` to an equivalent in PCRE2's syntax. The relevant differences: the meaning of \s, \w, \b and \h;
/// \p{Han}, which refers to scripts and not to script extensions; and set operations inside [...], which PCRE2 does not
/// have.
/// @throws Error{unsupported} through `node` if PCRE2 has no equivalent.
[[nodiscard]] std::string translate_regex(std::string_view pattern, const JsonNode& node);

}  // namespace mha2mla
