#include "mha2mla/error.hpp"
#include "strategies.hpp"

namespace mha2mla {

/// S_uniform = { floor(k * head_dim / (2r)) + start : 0 <= k < r }, the same in every head (MHA2MLA, section 3.1).
std::vector<std::int64_t> select_uniform(const ModelConfig& config, const RopeOptions& options, const PairRanks*,
                                         std::int64_t, std::int64_t) {
    const std::int64_t r = options.rope_dim / 2;
    std::vector<std::int64_t> pairs;
    for (std::int64_t k = 0; k < r; ++k) pairs.push_back(k * config.num_pairs() / r + options.uniform_start);
    if (!pairs.empty() && pairs.back() >= config.num_pairs()) {
        throw Error(ErrorCode::usage, "uniform-start " + std::to_string(options.uniform_start) + " moves the last of " +
                                          std::to_string(r) + " pairs past pair " +
                                          std::to_string(config.num_pairs() - 1) + "; use at most " +
                                          std::to_string(config.num_pairs() - 1 - (r - 1) * config.num_pairs() / r));
    }
    return pairs;
}

/// The reference walks all dimensions in steps of head_dim / rope_dim, which is our selection only where that divides.
bool reference_selects_uniform(const ModelConfig& config, const RopeOptions& options) {
    if (options.rope_dim == 0) return false;
    const std::int64_t step = config.head_dim / options.rope_dim;
    return config.head_dim % options.rope_dim == 0 && config.num_pairs() % step == 0 && options.uniform_start < step;
}

}  // namespace mha2mla
