#include <numeric>

#include "strategies.hpp"

namespace mha2mla {

/// S_low = { k : k >= head_dim/2 - r }, the slowest rotating pairs, the same in every head (MHA2MLA, section 3.1).
std::vector<std::int64_t> select_low(const ModelConfig& config, const RopeOptions& options, const PairRanks*,
                                     std::int64_t, std::int64_t) {
    std::vector<std::int64_t> pairs(static_cast<std::size_t>(options.rope_dim / 2));
    std::iota(pairs.begin(), pairs.end(), config.num_pairs() - options.rope_dim / 2);
    return pairs;
}

}  // namespace mha2mla
