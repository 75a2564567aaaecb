#include "latent_layer.hpp"

#include "../forward/kept_attention.hpp"
#include "../forward/project.hpp"

namespace mha2mla {
namespace {

/// Rotates the first heads * rope_dim columns in place.
void rotate(const LatentLayer& layer, const Sequences& sequences, std::int64_t heads, Turn turn, Matrix& x) {
    rotate_heads(sequences.rotary, turn, sequences.seq_len, x.rows(), {x.data(), x.cols(), heads, layer.rope_dim},
                 layer.pairs);
}

KeptShape shape_of(const LatentLayer& layer, std::int64_t tokens, std::int64_t seq_len) {
    return {tokens / seq_len, seq_len, layer.heads, layer.kv_heads, layer.head_dim, layer.rope_dim};
}

KeptInput input_of(const LatentLayer& layer, const LatentActivations& at) {
    return {{at.q.data(), at.q.cols()},
            {at.q.data() + layer.heads * layer.rope_dim, at.q.cols()},
            {at.k_rope.data(), at.k_rope.cols()},
            {at.k_nope.data(), at.k_nope.cols()},
            {at.v.data(), at.v.cols()}};
}

void bias_gradient(const Vector& bias, const Matrix& dy, Vector& to) {
    to.setZero(bias.size());
    if (bias.size() > 0) project_gradient({}, dy, {nullptr, to.data()});
}

}  // namespace

void run_latent(const LatentLayer& layer, const Sequences& sequences, const Matrix& input, LatentActivations& to) {
    const LatentWeights& w = layer.weights;
    project(input, w.q, layer.q_bias, to.q);
    project(input, w.k_rope, layer.k_rope_bias, to.k_rope);
    project(input, w.down, {}, to.latent);
    project(to.latent, w.up_k, layer.up_k_bias, to.k_nope);
    project(to.latent, w.up_v, layer.up_v_bias, to.v);
    rotate(layer, sequences, layer.heads, Turn::forward, to.q);
    rotate(layer, sequences, layer.kv_heads, Turn::forward, to.k_rope);
    const KeptShape shape = shape_of(layer, input.rows(), sequences.seq_len);
    to.attention.resize(shape.probabilities());
    to.mixed.resize(input.rows(), layer.heads * layer.head_dim);
    kept_attention(layer.rule, shape, input_of(layer, to), to.attention, to.mixed.data());
    project(to.mixed, w.o, {}, to.output);
}

void differentiate_latent(const LatentLayer& layer, const Sequences& sequences, const Matrix& input,
                          const LatentActivations& at, const Matrix& d_output, LatentGradient& to, Matrix* d_input) {
    const LatentWeights& w = layer.weights;
    LatentWeights& d = to.weights;
    weight_gradient(d_output, at.mixed, d.o);
    Matrix d_mixed;
    back_project(d_output, w.o, false, d_mixed);
    Matrix d_q(at.q.rows(), at.q.cols()), d_k_rope(at.k_rope.rows(), at.k_rope.cols());
    Matrix d_k_nope(at.k_nope.rows(), at.k_nope.cols()), d_v(at.v.rows(), at.v.cols());
    kept_attention_gradient(layer.rule, shape_of(layer, input.rows(), sequences.seq_len), input_of(layer, at),
                            at.attention, d_mixed.data(),
                            {{d_q.data(), d_q.cols()},
                             {d_q.data() + layer.heads * layer.rope_dim, d_q.cols()},
                             {d_k_rope.data(), d_k_rope.cols()},
                             {d_k_nope.data(), d_k_nope.cols()},
                             {d_v.data(), d_v.cols()}});
    rotate(layer, sequences, layer.heads, Turn::back, d_q);
    rotate(layer, sequences, layer.kv_heads, Turn::back, d_k_rope);
    weight_gradient(d_q, input, d.q);
    weight_gradient(d_k_rope, input, d.k_rope);
    weight_gradient(d_k_nope, at.latent, d.up_k);
    weight_gradient(d_v, at.latent, d.up_v);
    if (to.biases) {
        bias_gradient(layer.q_bias, d_q, to.q_bias);
        bias_gradient(layer.k_rope_bias, d_k_rope, to.k_rope_bias);
        bias_gradient(layer.up_k_bias, d_k_nope, to.up_k_bias);
        bias_gradient(layer.up_v_bias, d_v, to.up_v_bias);
    }
    Matrix d_latent;
    back_project(d_k_nope, w.up_k, false, d_latent);
    back_project(d_v, w.up_v, true, d_latent);
    weight_gradient(d_latent, input, d.down);
    if (d_input == nullptr) return;
    back_project(d_q, w.q, false, *d_input);
    back_project(d_k_rope, w.k_rope, true, *d_input);
    back_project(d_latent, w.down, true, *d_input);
}

}  // namespace mha2mla
