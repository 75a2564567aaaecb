#include <algorithm>
#include <array>

#include "../forward/layer.hpp"
#include "../rope/attention_order.hpp"
#include "../train/losses.hpp"
#include "mha2mla/align.hpp"
#include "mha2mla/error.hpp"
#include "mha2mla/factorize.hpp"
#include "mha2mla/threads.hpp"

namespace mha2mla {
namespace {

constexpr std::array<AlignQuality, 3> kQualities = {{
    {"fast", 60, 2048,
     "60 steps of gradient descent on each layer's own output; in layout deepseek also 30 of the last layer towards "
     "the next-token distributions, and twice as many of both in models of fewer than 512 hidden dimensions"},
    {"best", 60, 2048,
     "as fast, then 400 steps on every two neighbouring layers together, the last two towards the next-token "
     "distributions; for small models, since its time grows with layers and vocabulary",
     2, 400},
    {"none", 0, 2048,
     "no gradient descent: the factorisation as it is, with the split and the balances chosen on text"},
}};

constexpr std::int64_t kSeqLen = 512;
constexpr std::int64_t kMomentTokens = 65536;  // a quarter of them costs SmolLM2-135M 0.12 nats (docs/study.md)
constexpr std::int64_t kLayerCopies = 7;  // weights, gradient, two moments of Adam, a candidate, a copy of its rows

}  // namespace

std::span<const AlignQuality> align_qualities() { return kQualities; }

const AlignQuality& find_align_quality(std::string_view name) {
    std::string known;
    for (const auto& quality : kQualities) {
        if (quality.name == name) return quality;
        known += (known.empty() ? "" : ", ") + std::string(quality.name);
    }
    throw Error(ErrorCode::usage, "unknown quality '" + std::string(name) + "'; choose one of " + known);
}

std::int64_t align_tokens(const ModelConfig& config, const AlignQuality& quality) {
    const auto up_to = [&](std::int64_t tokens, std::int64_t held) {
        return std::min(tokens, held / static_cast<std::int64_t>(sizeof(float)) / config.hidden_size);
    };
    const std::int64_t descended = (quality.steps + quality.window_steps) * quality.step_tokens;
    return std::max(up_to(kMomentTokens, std::int64_t{1} << 30), up_to(descended, std::int64_t{1} << 27));
}

void refuse_alignment(const ModelConfig& config, const AlignOptions& options) {
    refuse_conversion(config);
    const std::string rule = options.layout->shared_rope_key ? deepseek_obstacle(config) : std::string();
    if (!rule.empty()) {
        throw Error(ErrorCode::unsupported, "model_type '" + config.model_type + "' has " + rule + ", which layout " +
                                                std::string(options.layout->name) +
                                                " has no place for; choose layout " +
                                                std::string(reference_layout().name));
    }
}

AlignRequest usual_request(const ModelConfig& config, const AlignOptions& options) {
    const std::int64_t seq_len = std::min(kSeqLen, config.max_position_embeddings);
    return {options, std::max<std::int64_t>(1, align_tokens(config, options.quality) / seq_len), seq_len};
}

std::uint64_t align_bytes(const ModelConfig& config, const AlignRequest& request) {
    const auto bytes = [](std::int64_t numbers) { return static_cast<std::uint64_t>(numbers) * sizeof(float); };
    const std::int64_t hidden = config.hidden_size;
    const std::int64_t query = config.num_attention_heads * config.head_dim;
    const std::int64_t key = config.num_key_value_heads * config.head_dim;
    std::int64_t layer = 0, token = 0;  // weights; numbers that the attention makes of a token
    for (const Split& split : possible_splits(config, request.options)) {
        const LatentShape shape =
            config.latent_shape(split.rope_dim, split.kv_rank, Factorization::whitened, *request.options.layout);
        const std::int64_t rank = shape.widths().key;
        const std::int64_t up = shape.up_key_rows() + shape.up_value_rows();
        layer = std::max(layer, (shape.latent_query_rows() + shape.rope_rows() + rank + query) * hidden + up * rank);
        token = std::max(token, shape.latent_query_rows() + shape.up_heads() * shape.rope_dim + rank + up + query);
    }
    const std::int64_t tokens = std::max<std::int64_t>(1, request.windows) * request.seq_len;
    const std::int64_t sequences = std::max<std::int64_t>(1, request.options.quality.step_tokens / request.seq_len);
    const std::int64_t block = std::min(tokens, sequences * request.seq_len);
    const std::int64_t threads = thread_count();
    const AlignQuality& quality = request.options.quality;
    const std::int64_t window = std::clamp<std::int64_t>(quality.window, 1, config.num_hidden_layers);
    // The hidden states of both models, the input and the target of a layer; with windows also the hidden states
    // between their layers.
    std::uint64_t sum = bytes((window > 1 ? 5 : 4) * tokens * hidden);
    sum += bytes(window * kLayerCopies * layer);
    // The activations of a step and their gradients, most of which are attention probabilities.
    sum += bytes((window + 1) * block * (token + key + 3 * hidden));
    sum += bytes(window * block * config.num_attention_heads * request.seq_len);
    if (window > 1) {  // activations of the MLPs, and logits of both models
        sum += bytes((2 * window + 3) * block * config.intermediate_size + 3 * window * block * hidden);
        sum += bytes(2 * kHeadTokens * config.vocab_size);
    }
    // Second moment, its root in both precisions, and the factorisation of the joint matrix.
    sum +=
        bytes(5 * hidden * hidden) + svd_bytes(static_cast<std::uint64_t>(2 * key), static_cast<std::uint64_t>(hidden));
    if (request.options.layout->shared_rope_key) {  // in double: moments of keys, the map of queries, the fit of W_o
        sum += 2 * bytes(4 * key * key + query * key + 3 * key * hidden + query * query + query * hidden);
    }
    // The order of pairs: queries, keys and values, W_o, and for each thread the sampled logits of a group.
    sum += bytes(kAlignOrderTokens * (query + 2 * key) + hidden * query);
    sum += bytes(threads * (kOrderRows * (request.seq_len + 4 * config.head_dim) +
                            4 * config.group_size() * kAlignOrderTokens * config.head_dim));
    return sum + workspace_bytes(config, block, static_cast<int>(threads));
}

}  // namespace mha2mla
