#pragma once
#include "mha2mla/rope.hpp"

namespace mha2mla {

/// The r pairs of a KV head with the least ranks, by whatever score they were ranked.
std::vector<std::int64_t> select_ranked(const ModelConfig& config, const RopeOptions& options, const PairRanks* ranks,
                                        std::int64_t layer, std::int64_t kv_head);
// Each of these is documented where it is defined.
std::vector<std::int64_t> select_high(const ModelConfig& config, const RopeOptions& options, const PairRanks* ranks,
                                      std::int64_t layer, std::int64_t kv_head);
std::vector<std::int64_t> select_low(const ModelConfig& config, const RopeOptions& options, const PairRanks* ranks,
                                     std::int64_t layer, std::int64_t kv_head);
std::vector<std::int64_t> select_uniform(const ModelConfig& config, const RopeOptions& options, const PairRanks* ranks,
                                         std::int64_t layer, std::int64_t kv_head);
bool reference_selects_uniform(const ModelConfig& config, const RopeOptions& options);

}  // namespace mha2mla
