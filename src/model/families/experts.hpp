#pragma once
#include <functional>
#include <vector>

#include "parts.hpp"

namespace mha2mla::family {

/// As of a dense MLP.
inline constexpr std::int64_t kMaxMlpWidth = std::int64_t{1} << 22;

/// The keys of a family's experts, and what its configuration class says where config.json does not.
struct ExpertKeys {
    std::vector<const char*> experts;                         // names of one number, of which one is enough
    std::int64_t default_experts = 0, default_per_token = 0;  // 0: must be given
    const char* width = "moe_intermediate_size";
    std::int64_t default_width = 0;
};
/// Experts, experts per token and width. @throws Error{format} where they are out of range or do not fit together.
[[nodiscard]] MixtureRule read_experts(const ConfigKeys& keys, const ExpertKeys& from);

/// Reads `n_group` and `topk_group` for a mixture that has its other sizes. @throws Error{format} as above.
void read_groups(const ConfigKeys& keys, std::int64_t default_groups, std::int64_t default_per_token,
                 MixtureRule& mixture);

using HasExperts = std::function<bool(std::int64_t layer)>;
/// All layers but those that `mlp_only_layers` lists, and those whose number, from 1, is no multiple of
/// `decoder_sparse_step`.
[[nodiscard]] HasExperts sparse_as_qwen(const ConfigKeys& keys);

/// Gives the mixture to the layers that have experts.
void place_experts(ModelConfig& config, const MixtureRule& mixture, const HasExperts& has_experts);

}  // namespace mha2mla::family
