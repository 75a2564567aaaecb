#include <algorithm>
#include <array>

#include "mha2mla/error.hpp"
#include "strategies.hpp"

namespace mha2mla {
namespace {

constexpr std::array<RopeStrategy, 5> kStrategies = {{
    {"2-norm", two_norm_ranks, false,
     "the paper's default: the pairs of each head with the largest |q||k| on your text", select_ranked},
    {"attention", attention_ranks, true,
     "the pairs without whose rotation the attention's output on your text changes most", select_ranked},
    {"high", nullptr, false, "the fastest rotating pairs; no text needed, a good start for small rope dimensions",
     select_high},
    {"low", nullptr, false, "the slowest rotating pairs; no text needed", select_low},
    {"uniform", nullptr, false, "evenly spaced frequencies; no text needed", select_uniform},
}};

}  // namespace

std::vector<std::int64_t> select_ranked(const ModelConfig& config, const RopeOptions& options, const PairRanks* ranks,
                                        std::int64_t layer, std::int64_t kv_head) {
    std::vector<std::int64_t> pairs;
    for (std::int64_t k = 0; k < config.num_pairs(); ++k) {
        if (ranks->rank(layer, kv_head, k) < options.rope_dim / 2) pairs.push_back(k);
    }
    return pairs;
}

std::span<const RopeStrategy> rope_strategies() { return kStrategies; }

const RopeStrategy& find_rope_strategy(std::string_view name) {
    std::string known;
    for (const auto& strategy : kStrategies) {
        if (strategy.name == name) return strategy;
        known += (known.empty() ? "" : ", ") + std::string(strategy.name);
    }
    throw Error(ErrorCode::usage, "unknown RoPE selection '" + std::string(name) + "'; choose one of " + known);
}

void check_rope_dim(const ModelConfig& config, std::int64_t rope_dim) {
    if (rope_dim < 0 || rope_dim > config.head_dim || rope_dim % 2 != 0) {
        throw Error(ErrorCode::usage, "rope-dim must be even and from 0 to head_dim (" +
                                          std::to_string(config.head_dim) + "), not " + std::to_string(rope_dim));
    }
}

RopeSelection select_rope(const ModelConfig& config, const RopeOptions& options, const PairRanks* ranks) {
    const RopeStrategy& strategy = find_rope_strategy(options.strategy);
    check_rope_dim(config, options.rope_dim);
    if (options.uniform_start < 0) throw Error(ErrorCode::usage, "uniform-start must not be negative");
    if (strategy.ranks != nullptr) {
        if (ranks == nullptr) {
            throw Error(ErrorCode::usage, "selection " + options.strategy + " needs statistics of this model");
        }
        const Shape have{ranks->layers, ranks->kv_heads, ranks->head_dim};
        const Shape want{config.num_hidden_layers, config.num_key_value_heads, config.head_dim};
        if (have != want) {
            throw Error(ErrorCode::usage, "ranks of another model: [layers, KV heads, head_dim] is " + to_string(have) +
                                              ", the checkpoint's is " + to_string(want));
        }
    }
    RopeSelection selection{options.strategy, options.rope_dim, {}};
    for (std::int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
        auto& heads = selection.pairs.emplace_back();
        for (std::int64_t head = 0; head < config.num_key_value_heads; ++head) {
            heads.push_back(strategy.select(config, options, ranks, layer, head));
        }
    }
    return selection;
}

PairRanks ranks_selecting(const RopeSelection& selection, const ModelConfig& config) {
    PairRanks ranks{config.num_hidden_layers, config.num_key_value_heads, config.head_dim, {}};
    for (const auto& layer : selection.pairs) {
        for (const auto& kept : layer) {
            std::vector<std::uint8_t> half;
            std::size_t next_kept = 0;
            std::size_t next_left = kept.size();
            for (std::int64_t k = 0; k < config.num_pairs(); ++k) {
                const bool keep = std::binary_search(kept.begin(), kept.end(), k);
                half.push_back(static_cast<std::uint8_t>(keep ? next_kept++ : next_left++));
            }
            for (int copy = 0; copy < 2; ++copy) ranks.values.insert(ranks.values.end(), half.begin(), half.end());
        }
    }
    return ranks;
}

bool reference_selects_the_same(const RopeSelection& selection, const ModelConfig& config, const RopeOptions& options) {
    if (selection.strategy == "high" || selection.strategy == "low") return true;
    if (selection.strategy != "uniform" || options.rope_dim == 0) return false;
    // It walks all dimensions in steps of head_dim / rope_dim, which is our selection only where that divides.
    const std::int64_t step = config.head_dim / options.rope_dim;
    return config.head_dim % options.rope_dim == 0 && config.num_pairs() % step == 0 && options.uniform_start < step;
}

}  // namespace mha2mla
