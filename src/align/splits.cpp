#include <algorithm>
#include <array>
#include <cmath>

#include "mha2mla/align.hpp"
#include "mha2mla/error.hpp"

namespace mha2mla {
namespace {

constexpr std::int64_t kMostSplits = 8;
constexpr std::array<std::int64_t, 3> kFolds = {1, 2, 4};
constexpr std::array<double, 5> kRopeShares = {0.2, 0.27, 0.33, 0.4, 0.45};  // of the budget, docs/study.md
constexpr double kNear = 0.2;  // relative distance within which a width of the model's frequencies is preferred

std::int64_t left_of(std::int64_t numbers, double kv_reduction) {
    return static_cast<std::int64_t>(std::floor(static_cast<double>(numbers) * (1 - kv_reduction) + 1e-9));
}

/// At most kMostSplits of them.
std::vector<Split> evenly_spaced(const std::vector<Split>& all) {
    std::vector<Split> some;
    const auto count = static_cast<std::int64_t>(all.size());
    const std::int64_t wanted = std::min(count, kMostSplits);
    for (std::int64_t i = 0; i < wanted; ++i) {
        some.push_back(all[static_cast<std::size_t>(wanted == 1 ? 0 : i * (count - 1) / (wanted - 1))]);
    }
    return some;
}

/// Of splits that share a budget with one rotated key, those that give it about as much as was best on other models,
/// each with every fold. A key as wide as a head or a whole part of it turns at frequencies that the model has too
/// (θ^(-2j/d_r)), which leaves up to half the error: such a width is taken for one that is near it.
std::vector<Split> with_folds(const std::vector<Split>& all, std::int64_t budget, const ModelConfig& config) {
    std::vector<Split> some;
    for (const double share : kRopeShares) {
        const auto wanted = static_cast<double>(budget) * share;
        const auto distance = [&](const Split& split) {
            const double away = std::abs(static_cast<double>(split.rope_dim) / wanted - 1);
            return config.head_dim % split.rope_dim == 0 && away < kNear ? away - kNear : away;
        };
        const Split& nearest = *std::min_element(
            all.begin(), all.end(), [&](const Split& a, const Split& b) { return distance(a) < distance(b); });
        const auto same = [&](const Split& split) { return split.rope_dim == nearest.rope_dim; };
        if (std::none_of(some.begin(), some.end(), same)) some.push_back(nearest);
    }
    std::vector<Split> result;
    for (const Split& split : some) {
        for (const std::int64_t fold : kFolds) {
            if (fold > config.num_pairs()) continue;
            result.push_back(split);
            result.back().fold = fold;
        }
    }
    return result;
}

/// TransMLA: head_dim is a multiple of the rotated key, which has half of it (64 of 128 as published) where the budget
/// leaves a latent beside that; the fold doubles from head_dim / rope_dim on.
std::vector<Split> transmla_splits(const ModelConfig& config, const AlignOptions& options) {
    const std::int64_t budget = left_of(2 * config.num_key_value_heads * config.head_dim, options.kv_reduction);
    const bool both = options.rope_dim && options.kv_rank;
    Split split;
    for (std::int64_t collapse = 2; collapse <= config.head_dim / 2 && split.rope_dim == 0; ++collapse) {
        const std::int64_t width = config.head_dim / collapse;
        if (config.head_dim % collapse == 0 && width % 2 == 0 && width < budget) split.rope_dim = width;
    }
    if (!both && options.kv_rank) split.rope_dim = budget - *options.kv_rank;
    split.rope_dim = options.rope_dim.value_or(split.rope_dim);
    split.kv_rank = options.kv_rank.value_or(budget - split.rope_dim);
    if (split.rope_dim < 2 || split.rope_dim % 2 != 0 || config.head_dim % split.rope_dim != 0 || split.kv_rank < 1) {
        throw Error(ErrorCode::usage,
                    "method transmla needs a rope-dim that divides the head_dim of " + std::to_string(config.head_dim) +
                        ", and at least 1 number beside it; rope-dim " + std::to_string(split.rope_dim) +
                        " with kv-rank " + std::to_string(split.kv_rank) + " is not possible");
    }
    std::vector<Split> splits;
    for (split.fold = config.head_dim / split.rope_dim; split.fold <= config.num_pairs(); split.fold *= 2) {
        if (config.num_pairs() % split.fold == 0) splits.push_back(split);
    }
    return splits;
}

std::int64_t largest_rank(const ModelConfig& config, const AlignOptions& options, std::int64_t rope_dim) {
    return *config.latent_shape(rope_dim, 0, Factorization::whitened, *options.layout).largest_kv_rank();
}

/// kKernelSplit, with every fold.
std::vector<Split> padded_splits(const ModelConfig& config) {
    const std::int64_t keys = config.num_key_value_heads * config.head_dim;
    if (keys < kKernelSplit.rope_dim) {
        throw Error(ErrorCode::usage, "pad needs keys of " + std::to_string(kKernelSplit.rope_dim) +
                                          " numbers or more; this model's are " + std::to_string(keys));
    }
    return with_folds({kKernelSplit}, kKernelSplit.rope_dim + kKernelSplit.kv_rank, config);
}

/// Nothing is saved: all rotated pairs and a latent as wide as the values.
Split replicated_split(const ModelConfig& config) {
    const std::int64_t width = config.num_key_value_heads * config.head_dim;
    return {width, std::min(width, config.hidden_size)};
}

}  // namespace

std::int64_t filled_rank(const ModelConfig& config, const AlignOptions& options, const Split& split) {
    std::int64_t filled = split.kv_rank - (options.latent_norm == LatentNorm::constant ? 1 : 0);
    if (options.pad) filled = std::min(filled, largest_rank(config, options, split.rope_dim));
    return filled;
}

std::vector<Split> possible_splits(const ModelConfig& config, const AlignOptions& options) {
    if (options.pad) return padded_splits(config);
    const bool both = options.rope_dim && options.kv_rank;
    const bool replicated =
        options.basis == SharedKeyBasis::replicated || options.basis == SharedKeyBasis::replicated_identity;
    if (options.layout->shared_rope_key && replicated) return {replicated_split(config)};
    if (!both && !(options.kv_reduction > 0 && options.kv_reduction < 1)) {
        throw Error(ErrorCode::usage, "kv-reduction must lie between 0 and 1, such as 0.6875");
    }
    const bool shared = options.layout->shared_rope_key;
    if (shared && options.basis == SharedKeyBasis::transmla) return transmla_splits(config, options);
    if (both && !shared) return {{*options.rope_dim, *options.kv_rank}};
    const std::int64_t keys = shared ? 1 : config.num_key_value_heads;  // that share the budget
    const std::int64_t numbers = 2 * config.num_key_value_heads * config.head_dim / keys;
    const std::int64_t budget = left_of(numbers, options.kv_reduction);
    std::vector<Split> all;
    const std::int64_t widest = config.num_key_value_heads * config.head_dim / keys;
    for (std::int64_t rope_dim = 2; rope_dim <= widest && (both || rope_dim < budget); rope_dim += 2) {
        // A latent that is given leaves what is left of the budget to rotated dimensions.
        if (!both && options.kv_rank && rope_dim != (budget - *options.kv_rank) / 2 * 2) continue;
        Split split{options.rope_dim.value_or(rope_dim), 0};
        split.kv_rank = options.kv_rank.value_or(budget - split.rope_dim);
        const std::int64_t channels = filled_rank(config, options, split);
        const bool fits = channels >= 1 && channels <= largest_rank(config, options, split.rope_dim);
        if (fits && (all.empty() || all.back().rope_dim != split.rope_dim)) all.push_back(split);
    }
    if (all.empty()) {
        const std::string left = "kv-reduction leaves " + std::to_string(budget) + " numbers per token and " +
                                 (shared ? "layer" : "KV head");
        if (options.rope_dim || options.kv_rank) {
            throw Error(ErrorCode::usage, left + ", too few or too many beside " +
                                              (options.rope_dim ? "rope-dim " + std::to_string(*options.rope_dim)
                                                                : "kv-rank " + std::to_string(*options.kv_rank)) +
                                              "; choose another, or leave it out");
        }
        const std::int64_t most = widest + largest_rank(config, options, widest);
        throw Error(ErrorCode::usage,
                    left + (budget > most ? ", more than the " + std::to_string(most) +
                                                " that keys and values of this model fill; save more"
                                          : ", with which there is no split into rotated and latent dimensions; the "
                                            "least is 3"));
    }
    return shared ? with_folds(all, budget, config) : evenly_spaced(all);
}

}  // namespace mha2mla
