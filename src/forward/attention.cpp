#include "attention.hpp"

#include <algorithm>
#include <limits>
#include <vector>

#include "../linalg/elementwise.hpp"
#include "../support/parallel.hpp"
#include "softmax.hpp"

namespace mha2mla {
namespace {

// The logits of a block, kRows x kKeyBlock floats, and the queries and keys for them fit a level-2 cache of 512 KiB.
constexpr std::int64_t kRows = 256;
constexpr std::int64_t kKeyBlock = 256;
constexpr std::int64_t kLeastQueries = 16;

std::int64_t query_block(std::int64_t group_size) { return std::max(kLeastQueries, kRows / group_size); }

/// The work of one thread: a block of queries of all query heads of one KV head; rows in order of heads.
struct Block {
    Block(std::vector<float>& scratch, std::int64_t group_size, std::int64_t key_dim, std::int64_t head_dim) {
        scratch.resize(static_cast<std::size_t>(attention_scratch(group_size, key_dim, head_dim)));
        const std::int64_t rows = group_size * query_block(group_size);
        q = scratch.data();
        k = q + rows * key_dim;
        logits = k + kKeyBlock * key_dim;
        result = logits + rows * kKeyBlock;
        maximum = result + rows * head_dim;
        sum = maximum + rows;
    }
    float* q;        // [rows, key_dim], times the rule's scale
    float* k;        // [keys of the block, key_dim]
    float* logits;   // [rows, keys of the block], then their exponentials
    float* result;   // [rows, head_dim], not yet divided by sum
    float* maximum;  // [rows]
    float* sum;      // [rows]
};

/// Gathers one head of `count` tokens from both parts. @param to [count, key_dim]
void gather(const AttentionInput& in, MatrixIn LogitPart::*side, std::int64_t LogitPart::*step, std::int64_t head,
            std::int64_t first, std::int64_t count, float scale, float* to) {
    const std::int64_t width = in.key_dim();
    std::int64_t column = 0;
    for (const auto& part : in.parts) {
        const MatrixIn& from = part.*side;
        for (std::int64_t t = 0; t < count; ++t) {
            const float* row = from.data + (first + t) * from.stride + head * (part.*step);
            for (std::int64_t i = 0; i < part.dim; ++i) to[t * width + column + i] = row[i] * scale;
        }
        column += part.dim;
    }
}

/// One block of keys: logits, running softmax, result += softmax · v.
/// @param first_query of the block and first_key, both counted from the start of the sequence.
/// @param begins whether these are the first keys that the queries attend to.
void attend(const AttentionInput& in, std::int64_t queries, std::int64_t first_query, std::int64_t first_key,
            std::int64_t keys, bool begins, MatrixIn v, const Block& block) {
    const std::int64_t rows = queries * (in.num_heads / in.num_kv_heads);
    const std::int64_t width = in.key_dim();
    multiply_abt(rows, keys, width, 1.0F, {block.q, width}, {block.k, width}, 0.0F, {block.logits, keys});
    for (std::int64_t row = 0; row < rows; ++row) {
        float* logits = block.logits + row * keys;
        const std::int64_t position = first_query + row % queries;
        const std::int64_t end = std::clamp<std::int64_t>(position + 1 - first_key, 0, keys);
        const std::int64_t start = std::clamp<std::int64_t>(first_visible(in.rule, position) - first_key, 0, end);
        std::fill(logits, logits + start, 0.0F);
        std::fill(logits + end, logits + keys, 0.0F);
        if (start == end) continue;
        if (in.rule.softcap > 0) soft_cap(in.rule.softcap, end - start, logits + start);
        const float factor = softmax_piece(logits + start, end - start, block.maximum[row], block.sum[row]);
        if (begins || factor == 1.0F) continue;
        float* result = block.result + row * in.head_dim;
        for (std::int64_t i = 0; i < in.head_dim; ++i) result[i] *= factor;
    }
    multiply_ab(rows, in.head_dim, keys, 1.0F, {block.logits, keys}, v, begins ? 0.0F : 1.0F,
                {block.result, in.head_dim});
}

}  // namespace

std::int64_t attention_scratch(std::int64_t group_size, std::int64_t key_dim, std::int64_t head_dim) {
    const std::int64_t rows = group_size * query_block(group_size);
    return rows * (key_dim + head_dim + kKeyBlock + 2) + kKeyBlock * key_dim;
}

void causal_attention(const AttentionInput& in, float* out) {
    const std::int64_t group = in.num_heads / in.num_kv_heads;
    const std::int64_t most_queries = query_block(group);
    const std::int64_t blocks = (in.seq_len + most_queries - 1) / most_queries;
    const std::int64_t out_stride = in.num_heads * in.head_dim;
    parallel_for(in.sequences * in.num_kv_heads * blocks, [&](std::int64_t item, std::vector<float>& scratch) {
        // Later blocks have more keys and take longer, so they are started first.
        const std::int64_t first = (blocks - 1 - item / (in.sequences * in.num_kv_heads)) * most_queries;
        const std::int64_t start = item / in.num_kv_heads % in.sequences * in.seq_len;
        const std::int64_t kv_head = item % in.num_kv_heads;
        const std::int64_t queries = std::min(most_queries, in.seq_len - first);
        const Block block(scratch, group, in.key_dim(), in.head_dim);
        for (std::int64_t g = 0; g < group; ++g) {
            gather(in, &LogitPart::q, &LogitPart::q_step, kv_head * group + g, start + first, queries, in.rule.scale,
                   block.q + g * queries * in.key_dim());
        }
        std::fill_n(block.maximum, group * queries, -std::numeric_limits<float>::infinity());
        std::fill_n(block.sum, group * queries, 0.0F);
        const std::int64_t first_key = first_visible(in.rule, first);
        for (std::int64_t key = first_key; key < first + queries; key += kKeyBlock) {
            const std::int64_t keys = std::min(kKeyBlock, first + queries - key);
            gather(in, &LogitPart::k, &LogitPart::k_step, kv_head, start + key, keys, 1.0F, block.k);
            attend(in, queries, first, key, keys, key == first_key,
                   {in.v.data + (start + key) * in.v.stride + kv_head * in.v_step, in.v.stride}, block);
        }
        for (std::int64_t row = 0; row < group * queries; ++row) {
            const std::int64_t token = start + first + row % queries;
            float* target = out + token * out_stride + (kv_head * group + row / queries) * in.head_dim;
            const float share = 1.0F / block.sum[row];
            for (std::int64_t i = 0; i < in.head_dim; ++i) target[i] = block.result[row * in.head_dim + i] * share;
        }
    });
}

}  // namespace mha2mla
