#include "kept_attention.hpp"

#include <algorithm>

#include "../support/parallel.hpp"
#include "softmax.hpp"

namespace mha2mla {
namespace {

/// One head of a sequence, from its two parts to a contiguous [seq_len, key_dim].
void gather(const KeptShape& shape, MatrixIn first, MatrixIn rest, std::int64_t token, std::int64_t head, float* to) {
    const std::int64_t rest_dim = shape.rest_dim;
    const float* a = first.data + token * first.stride + head * shape.first_dim;
    const float* b = rest.data + token * rest.stride + head * rest_dim;
    for (std::int64_t t = 0; t < shape.seq_len; ++t, to += shape.key_dim(), a += first.stride, b += rest.stride) {
        std::copy_n(a, shape.first_dim, to);
        std::copy_n(b, rest_dim, to + shape.first_dim);
    }
}

void scatter(const KeptShape& shape, const float* from, MatrixOut first, MatrixOut rest, std::int64_t token,
             std::int64_t head) {
    const std::int64_t rest_dim = shape.rest_dim;
    float* a = first.data + token * first.stride + head * shape.first_dim;
    float* b = rest.data + token * rest.stride + head * rest_dim;
    for (std::int64_t t = 0; t < shape.seq_len; ++t, from += shape.key_dim(), a += first.stride, b += rest.stride) {
        std::copy_n(from, shape.first_dim, a);
        std::copy_n(from + shape.first_dim, rest_dim, b);
    }
}

/// Calls body(rows, their number, tokens up to the last of them) for blocks of queries, or of keys: nothing is computed
/// of what lies whole behind the diagonal.
template <typename Body>
void for_each_block(std::int64_t tokens, const Body& body) {
    constexpr std::int64_t kBlock = 128;
    for (std::int64_t first = 0; first < tokens; first += kBlock) {
        const std::int64_t count = std::min(kBlock, tokens - first);
        body(first, count, first + count);
    }
}

/// Calls body(first token, KV head, scratch) for every sequence and KV head.
template <typename Body>
void for_each_kv_head(const KeptShape& shape, const Body& body) {
    parallel_for(shape.sequences * shape.kv_heads, [&](std::int64_t item, std::vector<float>& scratch) {
        body(item / shape.kv_heads * shape.seq_len, item % shape.kv_heads, scratch);
    });
}

}  // namespace

void kept_attention(const AttentionRule& rule, const KeptShape& shape, const KeptInput& input,
                    std::span<float> probabilities, float* out) {
    const std::int64_t n = shape.seq_len;
    const std::int64_t dim = shape.key_dim(), value_dim = shape.value_dim;
    const std::int64_t group = shape.heads / shape.kv_heads;
    for_each_kv_head(shape, [&](std::int64_t token, std::int64_t kv_head, std::vector<float>& scratch) {
        scratch.resize(static_cast<std::size_t>(2 * n * dim));
        float* q = scratch.data();
        float* k = q + n * dim;
        gather(shape, input.k_first, input.k_rest, token, kv_head, k);
        const MatrixIn v{input.v.data + token * input.v.stride + kv_head * value_dim, input.v.stride};
        const auto begins = shape.begins.empty()
                                ? shape.begins
                                : shape.begins.subspan(static_cast<std::size_t>(token), static_cast<std::size_t>(n));
        for (std::int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
            float* p = probabilities.data() + (token * shape.heads + head * n) * n;
            gather(shape, input.q_first, input.q_rest, token, head, q);
            for_each_block(n, [&](std::int64_t row, std::int64_t rows, std::int64_t seen) {
                multiply_abt(rows, seen, dim, rule.scale, {q + row * dim, dim}, {k, dim}, 0.0F, {p + row * n, n},
                             ProductPrecision::split);
            });
            causal_softmax(rule, n, p, begins);
            for_each_block(n, [&](std::int64_t row, std::int64_t rows, std::int64_t seen) {
                multiply_ab(rows, value_dim, seen, 1.0F, {p + row * n, n}, v, 0.0F,
                            {out + ((token + row) * shape.heads + head) * value_dim, shape.heads * value_dim},
                            ProductPrecision::split);
            });
        }
    });
}

void kept_attention_gradient(const AttentionRule& rule, const KeptShape& shape, const KeptInput& input,
                             std::span<const float> probabilities, const float* d_out, const KeptOutput& to) {
    const std::int64_t n = shape.seq_len;
    const std::int64_t dim = shape.key_dim(), value_dim = shape.value_dim;
    const std::int64_t group = shape.heads / shape.kv_heads;
    const std::int64_t stride = shape.heads * value_dim;
    for_each_kv_head(shape, [&](std::int64_t token, std::int64_t kv_head, std::vector<float>& scratch) {
        const bool capped = rule.softcap > 0;
        scratch.resize(static_cast<std::size_t>(4 * n * dim + (capped ? 2 : 1) * n * n));
        float* q = scratch.data();
        float* k = q + n * dim;
        float* d_q = k + n * dim;
        float* d_k = d_q + n * dim;
        float* d_logits = d_k + n * dim;
        float* logits = d_logits + n * n;  // if capped
        gather(shape, input.k_first, input.k_rest, token, kv_head, k);
        const float* v = input.v.data + token * input.v.stride + kv_head * value_dim;
        float* d_v = to.v.data + token * to.v.stride + kv_head * value_dim;
        for (std::int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
            const float before = head == kv_head * group ? 0.0F : 1.0F;  // the group's heads share keys and values
            const float* p = probabilities.data() + (token * shape.heads + head * n) * n;
            const float* d_mixed = d_out + token * stride + head * value_dim;
            for_each_block(n, [&](std::int64_t row, std::int64_t rows, std::int64_t seen) {
                multiply_atb(rows, value_dim, n - row, 1.0F, {p + row * n + row, n}, {d_mixed + row * stride, stride},
                             before, {d_v + row * to.v.stride, to.v.stride}, ProductPrecision::split);
                multiply_abt(rows, seen, value_dim, 1.0F, {d_mixed + row * stride, stride}, {v, input.v.stride}, 0.0F,
                             {d_logits + row * n, n}, ProductPrecision::split);
            });
            causal_softmax_gradient(rule, n, p, d_logits);
            gather(shape, input.q_first, input.q_rest, token, head, q);
            if (capped) {  // the logits are not kept
                multiply_abt(n, n, dim, rule.scale, {q, dim}, {k, dim}, 0.0F, {logits, n}, ProductPrecision::split);
                soft_cap(rule.softcap, n * n, logits);
                soft_cap_gradient(rule.softcap, n * n, logits, d_logits);
            }
            for_each_block(n, [&](std::int64_t row, std::int64_t rows, std::int64_t seen) {
                multiply_ab(rows, dim, seen, rule.scale, {d_logits + row * n, n}, {k, dim}, 0.0F,
                            {d_q + row * dim, dim}, ProductPrecision::split);
                multiply_atb(rows, dim, n - row, rule.scale, {d_logits + row * n + row, n}, {q + row * dim, dim},
                             before, {d_k + row * dim, dim}, ProductPrecision::split);
            });
            scatter(shape, d_q, to.q_first, to.q_rest, token, head);
        }
        scatter(shape, d_k, to.k_first, to.k_rest, token, kv_head);
    });
}

}  // namespace mha2mla
