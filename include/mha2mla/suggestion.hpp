#pragma once
/// The word that a person may have meant.

#include <span>
#include <string>
#include <string_view>

namespace mha2mla {

/// "; did you mean 'uniform'?" with the candidate nearest to `word`: one that begins with it, or the one at the least
/// edit distance (insertions, deletions, substitutions, swapped neighbours) if that is small. Otherwise "".
[[nodiscard]] std::string did_you_mean(std::string_view word, std::span<const std::string> candidates);

}  // namespace mha2mla
