#pragma once
#include <string_view>

namespace mha2mla {

/// The similarity of two texts as SequenceMatcher(None, a, b).ratio() of Python's difflib computes it (Ratcliff and
/// Obershelp): twice the characters that match over the characters of both, 1 for two empty texts. The longest common
/// block matches, and so on to its left and to its right. If `b` has 200 characters or more, those that occur in more
/// than 1 % of its places, plus one, do not begin a block ("autojunk"); a block still extends over them.
[[nodiscard]] double sequence_ratio(std::u32string_view a, std::u32string_view b);

}  // namespace mha2mla
