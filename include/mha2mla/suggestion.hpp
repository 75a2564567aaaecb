#pragma once
/// Spelling suggestions.

#include <span>
#include <string>
#include <string_view>

namespace mha2mla {

/// "; did you mean 'uniform'?" for the candidate nearest to `word`: one that begins with it, or the one at the smallest
/// edit distance (insertions, deletions, substitutions, swapped neighbours). Empty if no candidate is near.
[[nodiscard]] std::string did_you_mean(std::string_view word, std::span<const std::string> candidates);

}  // namespace mha2mla
