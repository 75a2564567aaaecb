#include <algorithm>
#include <array>

#include "attention_order.hpp"
#include "mha2mla/error.hpp"
#include "strategies.hpp"

namespace mha2mla {
namespace {

bool reference_selects_always(const ModelConfig&, const RopeOptions&) { return true; }

constexpr std::array<RopeStrategy, 5> kStrategies = {{
    {"2-norm",
     two_norm_ranks,
     {},
     nullptr,
     "the paper's default: the pairs of each head with the largest |q||k| on your text",
     select_ranked},
    {"attention",
     nullptr,
     {"attention", attention_order, "what the attention's output loses without their rotation",
      "about pairs*pairs/2 attentions of each head"},
     nullptr,
     "the pairs without whose rotation the attention's output on your text changes most",
     select_ranked},
    {"high",
     nullptr,
     {},
     reference_selects_always,
     "the fastest rotating pairs; no text needed, a good start for small rope dimensions",
     select_high},
    {"low", nullptr, {}, reference_selects_always, "the slowest rotating pairs; no text needed", select_low},
    {"uniform", nullptr, {}, reference_selects_uniform, "evenly spaced frequencies; no text needed", select_uniform},
}};

}  // namespace

std::vector<std::int64_t> select_ranked(const ModelConfig&, const RopeOptions& options, const PairRanks* ranks,
                                        std::int64_t layer, std::int64_t kv_head) {
    return ranks->first_pairs(layer, kv_head, options.rope_dim / 2);
}

void append_ranks(const LayerPairs& order, PairRanks& ranks) {
    for (const auto& pairs : order) {
        std::vector<std::uint8_t> half(pairs.size());
        for (std::size_t rank = 0; rank < pairs.size(); ++rank) {
            half[static_cast<std::size_t>(pairs[rank])] = static_cast<std::uint8_t>(rank);
        }
        for (int copy = 0; copy < 2; ++copy) ranks.values.insert(ranks.values.end(), half.begin(), half.end());
    }
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
    if (strategy.needs_ranks()) {
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
    for (LayerPairs orders : selection.pairs) {
        for (auto& order : orders) {
            const std::vector<std::int64_t> kept = order;
            for (std::int64_t k = 0; k < config.num_pairs(); ++k) {
                if (!std::binary_search(kept.begin(), kept.end(), k)) order.push_back(k);
            }
        }
        append_ranks(orders, ranks);
    }
    return ranks;
}

bool reference_selects_the_same(const RopeSelection& selection, const ModelConfig& config, const RopeOptions& options) {
    const auto same = find_rope_strategy(selection.strategy).reference_selects;
    return same != nullptr && same(config, options);
}

}  // namespace mha2mla
