#include "latent_layer.hpp"

#include <algorithm>
#include <cmath>

#include "../forward/project.hpp"
#include "../forward/softmax.hpp"
#include "../linalg/blas.hpp"
#include "../linalg/gemm.hpp"
#include "../support/parallel.hpp"

namespace mha2mla {
namespace {

/// Rotates the first heads * rope_dim columns in place.
void rotate(const LatentLayer& layer, const RotaryTable& rotary, std::int64_t seq_len, std::int64_t heads, Turn turn,
            Matrix& x) {
    rotate_heads(rotary, turn, seq_len, x.rows(), {x.data(), x.cols(), heads, layer.rope_dim}, layer.pairs);
}

/// One head of a sequence between its place in `rope` and `nope` and a contiguous [seq_len, head_dim].
struct HeadPlaces {
    float* rope;
    std::int64_t rope_stride;
    float* nope;
    std::int64_t nope_stride;
    std::int64_t rope_dim, head_dim;

    void gather(std::int64_t seq_len, float* to) const {
        for (std::int64_t t = 0; t < seq_len; ++t, to += head_dim) {
            std::copy_n(rope + t * rope_stride, rope_dim, to);
            std::copy_n(nope + t * nope_stride, head_dim - rope_dim, to + rope_dim);
        }
    }
    void scatter(std::int64_t seq_len, const float* from) const {
        for (std::int64_t t = 0; t < seq_len; ++t, from += head_dim) {
            std::copy_n(from, rope_dim, rope + t * rope_stride);
            std::copy_n(from + rope_dim, head_dim - rope_dim, nope + t * nope_stride);
        }
    }
};

HeadPlaces query_places(const LatentLayer& l, const Matrix& q, std::int64_t first_token, std::int64_t head) {
    float* row = const_cast<float*>(q.data()) + first_token * q.cols();
    const std::int64_t nope_dim = l.head_dim - l.rope_dim;
    return {row + head * l.rope_dim,
            q.cols(),
            row + l.heads * l.rope_dim + head * nope_dim,
            q.cols(),
            l.rope_dim,
            l.head_dim};
}

HeadPlaces key_places(const LatentLayer& l, const Matrix& k_rope, const Matrix& k_nope, std::int64_t first_token,
                      std::int64_t kv_head) {
    return {const_cast<float*>(k_rope.data()) + first_token * k_rope.cols() + kv_head * l.rope_dim,
            k_rope.cols(),
            const_cast<float*>(k_nope.data()) + first_token * k_nope.cols() + kv_head * (l.head_dim - l.rope_dim),
            k_nope.cols(),
            l.rope_dim,
            l.head_dim};
}

AttentionRule rule_of(const LatentLayer& layer) {
    return {.scale = 1.0F / std::sqrt(static_cast<float>(layer.head_dim))};
}

}  // namespace

void run_latent(const LatentLayer& layer, const RotaryTable& rotary, std::int64_t seq_len, const Matrix& input,
                LatentActivations& to) {
    const LatentWeights& w = layer.weights;
    const std::int64_t dim = layer.head_dim;
    const std::int64_t group = layer.heads / layer.kv_heads;
    const std::int64_t square = seq_len * seq_len;
    project(input, w.q, layer.q_bias, to.q);
    project(input, w.k_rope, layer.k_rope_bias, to.k_rope);
    project(input, w.down, {}, to.latent);
    project(to.latent, w.up_k, layer.up_k_bias, to.k_nope);
    project(to.latent, w.up_v, layer.up_v_bias, to.v);
    rotate(layer, rotary, seq_len, layer.heads, Turn::forward, to.q);
    rotate(layer, rotary, seq_len, layer.kv_heads, Turn::forward, to.k_rope);
    const std::int64_t sequences = input.rows() / seq_len;
    to.attention.resize(static_cast<std::size_t>(sequences * layer.heads * square));
    to.mixed.resize(input.rows(), layer.heads * dim);
    const AttentionRule rule = rule_of(layer);
    parallel_for(sequences * layer.kv_heads, [&](std::int64_t item, std::vector<float>& scratch) {
        const std::int64_t sequence = item / layer.kv_heads;
        const std::int64_t kv_head = item % layer.kv_heads;
        const std::int64_t token = sequence * seq_len;
        scratch.resize(static_cast<std::size_t>(2 * seq_len * dim));
        float* q = scratch.data();
        float* k = q + seq_len * dim;
        key_places(layer, to.k_rope, to.k_nope, token, kv_head).gather(seq_len, k);
        const MatrixIn v{to.v.data() + token * to.v.cols() + kv_head * dim, to.v.cols()};
        for (std::int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
            float* attention = to.attention.data() + (sequence * layer.heads + head) * square;
            query_places(layer, to.q, token, head).gather(seq_len, q);
            multiply_abt(seq_len, seq_len, dim, rule.scale, {q, dim}, {k, dim}, 0.0F, {attention, seq_len});
            causal_softmax(rule, seq_len, attention);
            multiply_ab(seq_len, dim, seq_len, 1.0F, {attention, seq_len}, v, 0.0F,
                        {to.mixed.data() + token * to.mixed.cols() + head * dim, to.mixed.cols()});
        }
    });
    project(to.mixed, w.o, {}, to.output);
}

void differentiate_latent(const LatentLayer& layer, const RotaryTable& rotary, std::int64_t seq_len,
                          const Matrix& input, const LatentActivations& at, const Matrix& d_output, LatentWeights& to,
                          Matrix* d_input) {
    const LatentWeights& w = layer.weights;
    const std::int64_t dim = layer.head_dim;
    const std::int64_t group = layer.heads / layer.kv_heads;
    const std::int64_t square = seq_len * seq_len;
    weight_gradient(d_output, at.mixed, to.o);
    Matrix d_mixed;
    back_project(d_output, w.o, false, d_mixed);
    Matrix d_q(at.q.rows(), at.q.cols()), d_k_rope(at.k_rope.rows(), at.k_rope.cols());
    Matrix d_k_nope(at.k_nope.rows(), at.k_nope.cols()), d_v(at.v.rows(), at.v.cols());
    const AttentionRule rule = rule_of(layer);
    parallel_for(input.rows() / seq_len * layer.kv_heads, [&](std::int64_t item, std::vector<float>& scratch) {
        const std::int64_t sequence = item / layer.kv_heads;
        const std::int64_t kv_head = item % layer.kv_heads;
        const std::int64_t token = sequence * seq_len;
        scratch.resize(static_cast<std::size_t>(4 * seq_len * dim + square));
        float* q = scratch.data();
        float* k = q + seq_len * dim;
        float* d_head_q = k + seq_len * dim;
        float* d_head_k = d_head_q + seq_len * dim;
        float* d_attention = d_head_k + seq_len * dim;
        key_places(layer, at.k_rope, at.k_nope, token, kv_head).gather(seq_len, k);
        const float* v = at.v.data() + token * at.v.cols() + kv_head * dim;
        float* d_head_v = d_v.data() + token * d_v.cols() + kv_head * dim;
        for (std::int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
            const float before = head == kv_head * group ? 0.0F : 1.0F;  // the group's heads share keys and values
            const float* attention = at.attention.data() + (sequence * layer.heads + head) * square;
            const float* d_out = d_mixed.data() + token * d_mixed.cols() + head * dim;
            gemm(CblasTrans, CblasNoTrans, seq_len, dim, seq_len, 1.0F, attention, seq_len, d_out, d_mixed.cols(),
                 before, d_head_v, d_v.cols());
            multiply_abt(seq_len, seq_len, dim, 1.0F, {d_out, d_mixed.cols()}, {v, at.v.cols()}, 0.0F,
                         {d_attention, seq_len});
            causal_softmax_gradient(rule, seq_len, attention, d_attention);
            multiply_ab(seq_len, dim, seq_len, rule.scale, {d_attention, seq_len}, {k, dim}, 0.0F, {d_head_q, dim});
            query_places(layer, d_q, token, head).scatter(seq_len, d_head_q);
            query_places(layer, at.q, token, head).gather(seq_len, q);
            gemm(CblasTrans, CblasNoTrans, seq_len, dim, seq_len, rule.scale, d_attention, seq_len, q, dim, before,
                 d_head_k, dim);
        }
        key_places(layer, d_k_rope, d_k_nope, token, kv_head).scatter(seq_len, d_head_k);
    });
    rotate(layer, rotary, seq_len, layer.heads, Turn::back, d_q);
    rotate(layer, rotary, seq_len, layer.kv_heads, Turn::back, d_k_rope);
    weight_gradient(d_q, input, to.q);
    weight_gradient(d_k_rope, input, to.k_rope);
    weight_gradient(d_k_nope, at.latent, to.up_k);
    weight_gradient(d_v, at.latent, to.up_v);
    Matrix d_latent;
    back_project(d_k_nope, w.up_k, false, d_latent);
    back_project(d_v, w.up_v, true, d_latent);
    weight_gradient(d_latent, input, to.down);
    if (d_input == nullptr) return;
    back_project(d_q, w.q, false, *d_input);
    back_project(d_k_rope, w.k_rope, true, *d_input);
    back_project(d_latent, w.down, true, *d_input);
}

}  // namespace mha2mla
