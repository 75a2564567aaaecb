#include <numeric>

#include "strategies.hpp"

namespace mha2mla {

/// S_high = { k : k < r }, the fastest rotating pairs, the same in every head (MHA2MLA, section 3.1).
std::vector<std::int64_t> select_high(const ModelConfig&, const RopeOptions& options, const PairRanks*, std::int64_t,
                                      std::int64_t) {
    std::vector<std::int64_t> pairs(static_cast<std::size_t>(options.rope_dim / 2));
    std::iota(pairs.begin(), pairs.end(), 0);
    return pairs;
}

}  // namespace mha2mla
