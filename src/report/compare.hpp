#pragma once
#include <cstdint>
#include <vector>

#include "mha2mla/report.hpp"

namespace mha2mla {

/// |a ∩ b| / |a ∪ b| of two ascending lists; 1 if both are empty.
[[nodiscard]] double jaccard(const std::vector<std::int64_t>& a, const std::vector<std::int64_t>& b);

/// Compares the ranks of two statistics files.
/// @param ranks the ranks of `source`. @throws Error{usage} naming both files if their shapes differ.
[[nodiscard]] Comparison compare(const NamedStats& source, const PairRanks& ranks, std::int64_t rope_dim,
                                 NamedStats other);

}  // namespace mha2mla
