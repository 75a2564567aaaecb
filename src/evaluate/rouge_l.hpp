#pragma once
#include <string_view>

namespace mha2mla {

/// The F-measure of ROUGE-L on the level of a summary, as the Python package `rouge` 1.0.1 computes it: sentences end
/// at dots, words are compared as they are and counted as sets, and what longest common subsequences of all pairs of
/// sentences hold is united. 0 if a text has no sentence. Two equal texts have just less than 1.
///
/// The package gives up, and LongBench counts 0, where two sentences have about 1000 words together, because its
/// recursion is that deep; this function has no such limit.
[[nodiscard]] double rouge_l(std::u32string_view prediction, std::u32string_view reference);

}  // namespace mha2mla
