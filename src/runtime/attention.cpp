#include "attention.hpp"

#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <vector>

#include "../linalg/parallel.hpp"

namespace mha2mla {
namespace {

constexpr std::int64_t kQueryBlock = 128;

/// Softmax of the first `visible` logits of a row; the masked rest becomes 0.
void causal_softmax(float* row, std::int64_t visible, std::int64_t width) {
    Eigen::Map<Eigen::ArrayXf> logits(row, visible);
    logits = (logits - logits.maxCoeff()).exp();
    logits *= 1.0F / logits.sum();
    std::fill(row + visible, row + width, 0.0F);
}

}  // namespace

void causal_attention(const AttentionInput& in, float* out) {
    const std::int64_t blocks = (in.seq_len + kQueryBlock - 1) / kQueryBlock;
    const std::int64_t out_stride = in.num_heads * in.head_dim;
    const float scale = 1.0F / std::sqrt(static_cast<float>(in.head_dim));
    parallel_for(in.sequences * in.num_heads * blocks, [&](std::int64_t item, std::vector<float>& scores) {
        // Later blocks see more keys and take longer, so they are handed out first.
        const std::int64_t block = blocks - 1 - item / (in.sequences * in.num_heads);
        const std::int64_t sequence = item / in.num_heads % in.sequences;
        const std::int64_t head = item % in.num_heads;
        const std::int64_t kv_head = head / (in.num_heads / in.num_kv_heads);
        const std::int64_t first = block * kQueryBlock;
        const std::int64_t queries = std::min(kQueryBlock, in.seq_len - first);
        const std::int64_t keys = first + queries;
        const std::int64_t start = sequence * in.seq_len;
        scores.resize(static_cast<std::size_t>(kQueryBlock * in.seq_len));
        float beta = 0.0F;
        for (const auto& part : in.parts) {
            if (part.dim == 0) continue;
            multiply_abt(queries, keys, part.dim, scale,
                         {part.q.data + (start + first) * part.q.stride + head * part.dim, part.q.stride},
                         {part.k.data + start * part.k.stride + kv_head * part.dim, part.k.stride}, beta,
                         {scores.data(), keys});
            beta = 1.0F;
        }
        for (std::int64_t q = 0; q < queries; ++q) causal_softmax(scores.data() + q * keys, first + q + 1, keys);
        multiply_ab(queries, in.head_dim, keys, 1.0F, {scores.data(), keys},
                    {in.v.data + start * in.v.stride + kv_head * in.head_dim, in.v.stride}, 0.0F,
                    {out + (start + first) * out_stride + head * in.head_dim, out_stride});
    });
}

}  // namespace mha2mla
