#include <algorithm>

#include "../rope/attention_order.hpp"
#include "../runtime/layer.hpp"
#include "mha2mla/align.hpp"
#include "mha2mla/factorize.hpp"
#include "mha2mla/threads.hpp"

namespace mha2mla {
namespace {

constexpr std::int64_t kSeqLen = 512;
constexpr std::int64_t kLayerCopies = 7;  // weights, gradient, two moments of Adam, a candidate, what is gathered of it

}  // namespace

AlignRequest usual_request(const ModelConfig& config, const AlignOptions& options) {
    const std::int64_t seq_len = std::min(kSeqLen, config.max_position_embeddings);
    return {options, std::max<std::int64_t>(1, align_tokens(config, options.quality) / seq_len), seq_len};
}

std::uint64_t align_bytes(const ModelConfig& config, const AlignRequest& request) {
    const auto bytes = [](std::int64_t numbers) { return static_cast<std::uint64_t>(numbers) * sizeof(float); };
    const std::int64_t hidden = config.hidden_size;
    const std::int64_t query = config.num_attention_heads * config.head_dim;
    const std::int64_t key = config.num_key_value_heads * config.head_dim;
    std::int64_t layer = 0, rank = 0;
    for (const Split& split : possible_splits(config, request.options)) {
        const std::int64_t width = config.num_key_value_heads * split.kv_rank;
        const std::int64_t rope = config.num_key_value_heads * split.rope_dim;
        rank = std::max(rank, width);
        layer = std::max(layer, 2 * query * hidden + (rope + width) * hidden + (2 * key - rope) * width);
    }
    const std::int64_t tokens = std::max<std::int64_t>(1, request.windows) * request.seq_len;
    const std::int64_t sequences = std::max<std::int64_t>(1, request.options.quality.step_tokens / request.seq_len);
    const std::int64_t block = std::min(tokens, sequences * request.seq_len);
    const std::int64_t threads = thread_count();
    // Hidden states of both models, what goes into a layer and what should come out of it.
    std::uint64_t sum = bytes(4 * tokens * hidden);
    sum += bytes(kLayerCopies * layer);
    // Activations of a step and their derivatives; the attention's probabilities are most of them.
    sum += bytes(2 * block * (2 * query + 3 * key + rank + 3 * hidden));
    sum += bytes(block * config.num_attention_heads * request.seq_len);
    // Second moment, its root in both precisions, and the factorisation of the joint matrix.
    sum +=
        bytes(5 * hidden * hidden) + svd_bytes(static_cast<std::uint64_t>(2 * key), static_cast<std::uint64_t>(hidden));
    // The order of pairs: sampled logits, and changed ones, of each thread's group.
    sum += bytes(4 * threads * kOrderRows * request.seq_len);
    return sum + workspace_bytes(config, block, static_cast<int>(threads));
}

}  // namespace mha2mla
