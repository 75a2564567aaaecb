#pragma once
/// Sets of characters in regular expressions: [...] of Oniguruma's Ruby syntax, written in that of PCRE2.

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>

namespace mha2mla {

// Oniguruma's \s, \w and \h as the content of a [...]. PCRE2's own \s has U+180E, which is not White_Space; its \w
// lacks marks (before 10.43); its \h is a blank, but Ruby's is a hexadecimal digit.
inline constexpr std::string_view kSpaces = R"(\p{White_Space})";
inline constexpr std::string_view kWordCharacters = R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc})";
inline constexpr std::string_view kHexDigits = "0-9A-Fa-f";

/// Ends with an error that says what cannot be translated.
using Refuse = std::function<void(std::string_view what)>;

/// \p{...} at `at`, which is moved behind it. Names of one or two letters are general categories; others are scripts or
/// one of a few binary properties.
[[nodiscard]] std::string translate_property(std::string_view pattern, std::size_t& at, const Refuse& refuse);

/// The set whose [ stands at `at`, which is moved behind its ]. It may hold sets, which are united with what stands
/// beside them, and intersections: `a&&b`. The result matches one character. `ignores_case`: whether (?i) may hold.
[[nodiscard]] std::string translate_set(std::string_view pattern, std::size_t& at, bool ignores_case,
                                        const Refuse& refuse);

}  // namespace mha2mla
