#include "latent_layer.hpp"

#include <utility>

#include "../forward/for_each_token.hpp"
#include "../forward/kept_attention.hpp"
#include "../forward/norm.hpp"
#include "../forward/project.hpp"

namespace mha2mla {
namespace {

/// Rotates the first heads * rope_dim columns in place.
void rotate(const LatentLayer& layer, std::int64_t seq_len, std::int64_t heads, Turn turn, Matrix& x) {
    rotate_heads(*layer.rotary, turn, seq_len, x.rows(), {x.data(), x.cols(), heads, layer.shape.rope_dim},
                 layer.pairs);
}

KeptShape kept_shape(const LatentShape& shape, std::int64_t tokens, std::int64_t seq_len) {
    return {tokens / seq_len, seq_len,          shape.num_heads, shape.up_heads(),
            shape.rope_dim,   shape.nope_dim(), shape.head_dim};
}

/// The two parts of heads that lie behind each other in q.
std::pair<HeadColumns, HeadColumns> query_parts(const LatentShape& shape, Matrix& q) {
    return {head_columns(q, shape.num_heads, {0, shape.rope_dim}),
            head_columns(q, shape.num_heads, {shape.num_heads * shape.rope_dim, shape.nope_dim()})};
}

void norm_heads(const LatentLayer& layer, LatentActivations& to) {
    const LatentShape& shape = layer.shape;
    const auto& [query, key] = *layer.head_norms;
    to.raw_q = to.q, to.raw_k_rope = to.k_rope, to.raw_k_nope = to.k_nope;
    const auto [query_rope, query_nope] = query_parts(shape, to.q);
    to.q_scales = query.scales(to.q.rows(), query_rope, query_nope);
    query.apply(to.q_scales, query_rope, query_nope);
    const HeadColumns key_rope = head_columns(to.k_rope, shape.rope_keys(), {0, shape.rope_dim}),
                      key_nope = head_columns(to.k_nope, shape.up_heads(), {0, shape.nope_dim()});
    to.k_scales = key.scales(to.q.rows(), key_rope, key_nope);
    key.apply(to.k_scales, key_rope, key_nope);
}

KeptInput input_of(const LatentLayer& layer, const LatentActivations& at) {
    return {{at.q.data(), at.q.cols()},
            {at.q.data() + layer.shape.num_heads * layer.shape.rope_dim, at.q.cols()},
            {at.k_rope.data(), at.k_rope.cols()},
            {at.k_nope.data(), at.k_nope.cols()},
            {at.v.data(), at.v.cols()}};
}

/// Turns derivatives by normed queries and keys into those before the norms.
void norm_heads_gradient(const LatentLayer& layer, const LatentActivations& at, Matrix& d_q, Matrix& d_k_rope,
                         Matrix& d_k_nope, LatentGradient& to) {
    const LatentShape& shape = layer.shape;
    Matrix raw_q = at.raw_q, raw_k_rope = at.raw_k_rope, raw_k_nope = at.raw_k_nope;
    const auto [query_rope, query_nope] = query_parts(shape, raw_q);
    const auto [d_query_rope, d_query_nope] = query_parts(shape, d_q);
    const HeadColumns key_rope = head_columns(raw_k_rope, shape.rope_keys(), {0, shape.rope_dim}),
                      key_nope = head_columns(raw_k_nope, shape.up_heads(), {0, shape.nope_dim()}),
                      d_key_rope = head_columns(d_k_rope, shape.rope_keys(), {0, shape.rope_dim}),
                      d_key_nope = head_columns(d_k_nope, shape.up_heads(), {0, shape.nope_dim()});
    const auto& [query, key] = *layer.head_norms;
    if (to.norms) {
        to.head_norms = {query.weight_gradient(at.q_scales, query_rope, query_nope, d_query_rope, d_query_nope),
                         key.weight_gradient(at.k_scales, key_rope, key_nope, d_key_rope, d_key_nope)};
    }
    query.back(at.q_scales, query_rope, query_nope, d_query_rope, d_query_nope);
    key.back(at.k_scales, key_rope, key_nope, d_key_rope, d_key_nope);
}

/// Where all heads share one rotated key: a copy of it for each.
void copy_to_heads(const LatentShape& shape, Matrix& k_rope) {
    if (shape.rope_keys() == shape.up_heads()) return;
    Matrix copies(k_rope.rows(), k_rope.cols() * shape.up_heads());
    for_each_token(k_rope.rows(),
                   [&](std::int64_t t) { copies.row(t) = k_rope.row(t).replicate(1, shape.up_heads()); });
    k_rope = std::move(copies);
}

/// The derivative by the one key, from those by its copies.
void sum_over_heads(const LatentShape& shape, Matrix& d_k_rope) {
    if (shape.rope_keys() == shape.up_heads()) return;
    Matrix sum(d_k_rope.rows(), shape.rope_dim);
    for_each_token(sum.rows(), [&](std::int64_t t) {
        const auto copies = d_k_rope.row(t);
        sum.row(t) = copies.head(shape.rope_dim);
        for (std::int64_t head = 1; head < shape.up_heads(); ++head) {
            sum.row(t) += copies.segment(head * shape.rope_dim, shape.rope_dim);
        }
    });
    d_k_rope = std::move(sum);
}

void bias_gradient(const Vector& bias, const Matrix& dy, Vector& to) {
    to.setZero(bias.size());
    if (bias.size() > 0) project_gradient({}, dy, {nullptr, to.data()});
}

}  // namespace

void run_latent(const LatentLayer& layer, std::int64_t seq_len, const Matrix& input, LatentActivations& to,
                std::span<const std::int64_t> begins) {
    const LatentWeights& w = layer.weights;
    const LatentShape& shape = layer.shape;
    project(input, w.q, w.q_bias, to.q);
    project(input, w.k_rope, w.k_rope_bias, to.k_rope);
    project(input, w.down, {}, to.latent);
    if (layer.norm_eps > 0) {
        to.raw_latent.swap(to.latent);
        rms_norm(layer.norm_eps, to.raw_latent, to.latent);
    }
    project(to.latent, w.up_k, w.up_k_bias, to.k_nope);
    project(to.latent, w.up_v, w.up_v_bias, to.v);
    const bool rotates_first = layer.rule.rotates_before_norm;
    if (layer.head_norms && !rotates_first) norm_heads(layer, to);
    rotate(layer, seq_len, shape.num_heads, Turn::forward, to.q);
    rotate(layer, seq_len, shape.rope_keys(), Turn::forward, to.k_rope);
    if (layer.head_norms && rotates_first) norm_heads(layer, to);
    copy_to_heads(shape, to.k_rope);
    KeptShape kept = kept_shape(shape, input.rows(), seq_len);
    kept.begins = begins;
    to.attention.resize(kept.probabilities());
    to.mixed.resize(input.rows(), shape.num_heads * shape.head_dim);
    kept_attention(layer.rule, kept, input_of(layer, to), to.attention, to.mixed.data());
    project(to.mixed, w.o, {}, to.output);
}

void differentiate_latent(const LatentLayer& layer, std::int64_t seq_len, const Matrix& input,
                          const LatentActivations& at, const Matrix& d_output, LatentGradient& to, Matrix* d_input) {
    const LatentWeights& w = layer.weights;
    const LatentShape& shape = layer.shape;
    LatentWeights& d = to.weights;
    weight_gradient(d_output, at.mixed, d.o);
    Matrix d_mixed;
    back_project(d_output, w.o, false, d_mixed);
    Matrix d_q(at.q.rows(), at.q.cols()), d_k_rope(at.k_rope.rows(), at.k_rope.cols());
    Matrix d_k_nope(at.k_nope.rows(), at.k_nope.cols()), d_v(at.v.rows(), at.v.cols());
    kept_attention_gradient(layer.rule, kept_shape(shape, input.rows(), seq_len), input_of(layer, at), at.attention,
                            d_mixed.data(),
                            {{d_q.data(), d_q.cols()},
                             {d_q.data() + shape.num_heads * shape.rope_dim, d_q.cols()},
                             {d_k_rope.data(), d_k_rope.cols()},
                             {d_k_nope.data(), d_k_nope.cols()},
                             {d_v.data(), d_v.cols()}});
    sum_over_heads(shape, d_k_rope);
    to.head_norms.reset();
    const bool rotates_first = layer.rule.rotates_before_norm;
    if (layer.head_norms && rotates_first) norm_heads_gradient(layer, at, d_q, d_k_rope, d_k_nope, to);
    rotate(layer, seq_len, shape.num_heads, Turn::back, d_q);
    rotate(layer, seq_len, shape.rope_keys(), Turn::back, d_k_rope);
    if (layer.head_norms && !rotates_first) norm_heads_gradient(layer, at, d_q, d_k_rope, d_k_nope, to);
    weight_gradient(d_q, input, d.q);
    weight_gradient(d_k_rope, input, d.k_rope);
    weight_gradient(d_k_nope, at.latent, d.up_k);
    weight_gradient(d_v, at.latent, d.up_v);
    if (to.biases) {
        bias_gradient(w.q_bias, d_q, d.q_bias);
        bias_gradient(w.k_rope_bias, d_k_rope, d.k_rope_bias);
        bias_gradient(w.up_k_bias, d_k_nope, d.up_k_bias);
        bias_gradient(w.up_v_bias, d_v, d.up_v_bias);
    }
    Matrix d_latent;
    back_project(d_k_nope, w.up_k, false, d_latent);
    back_project(d_v, w.up_v, true, d_latent);
    if (layer.norm_eps > 0) {
        const Matrix d_normed = std::exchange(d_latent, Matrix::Zero(d_latent.rows(), d_latent.cols()));
        rms_norm_gradient(layer.norm_eps, at.raw_latent, d_normed, d_latent);
    }
    weight_gradient(d_latent, input, d.down);
    if (d_input == nullptr) return;
    back_project(d_q, w.q, false, *d_input);
    back_project(d_k_rope, w.k_rope, true, *d_input);
    back_project(d_latent, w.down, true, *d_input);
}

}  // namespace mha2mla
