#include "layer.hpp"

#include <algorithm>
#include <cmath>

#include "../linalg/parallel.hpp"
#include "attention.hpp"
#include "linear.hpp"

namespace mha2mla {
namespace {

void apply(const LinearView& view, const Matrix& x, Matrix& y) {
    y.resize(x.rows(), view.out_features());
    linear(view, x.rows(), x.data(), y.data());
}

/// Rotates every head of every token. @param x [tokens, heads * dim], the columns of `pairs_of_head` per head.
template <typename PairsOfHead>
void rotate_heads(const RotaryTable& rotary, std::int64_t seq_len, std::int64_t heads, std::int64_t dim, float* x,
                  std::int64_t stride, std::int64_t tokens, const PairsOfHead& pairs_of_head) {
    if (dim == 0) return;
    parallel_for(tokens, [&](std::int64_t token, std::vector<float>&) {
        for (std::int64_t head = 0; head < heads; ++head) {
            rotary.rotate(x + token * stride + head * dim, token % seq_len, pairs_of_head(head));
        }
    });
}

AttentionInput attention_shape(const ModelConfig& config, std::int64_t tokens, std::int64_t seq_len) {
    AttentionInput input;
    input.sequences = tokens / seq_len;
    input.seq_len = seq_len;
    input.num_heads = config.num_attention_heads;
    input.num_kv_heads = config.num_key_value_heads;
    input.head_dim = config.head_dim;
    return input;
}

MatrixIn rows_of(const Matrix& matrix, std::int64_t first_column = 0) {
    return {matrix.data() + first_column, matrix.cols()};
}

void original_attention(const ModelConfig& config, const AttentionView& view, std::int64_t layer,
                        const RotaryTable& rotary, std::int64_t seq_len, LayerWorkspace& work,
                        const AttentionTap& tap) {
    apply(view.q, work.normed, work.q);
    apply(view.k, work.normed, work.k);
    apply(view.v, work.normed, work.v);
    if (tap) tap(layer, work.q, work.k);
    const std::int64_t tokens = work.q.rows();
    const auto all_pairs = [](std::int64_t) { return std::span<const std::int64_t>(); };
    rotate_heads(rotary, seq_len, config.num_attention_heads, config.head_dim, work.q.data(), work.q.cols(), tokens,
                 all_pairs);
    rotate_heads(rotary, seq_len, config.num_key_value_heads, config.head_dim, work.k.data(), work.k.cols(), tokens,
                 all_pairs);
    AttentionInput input = attention_shape(config, tokens, seq_len);
    input.parts[0] = {rows_of(work.q), rows_of(work.k), config.head_dim};
    input.v = rows_of(work.v);
    causal_attention(input, work.attention.data());
}

/// MLA in its expanded form (MHA2MLA, eq. 8-10): keys and values are computed from the latent, then attended to as
/// usual. The scale stays that of the original head_dim.
void expanded_latent_attention(const ModelConfig& config, const LatentAttentionView& view, std::int64_t layer,
                               const RotaryTable& rotary, std::int64_t seq_len, LayerWorkspace& work) {
    const std::int64_t heads = config.num_attention_heads;
    const std::int64_t kv_heads = config.num_key_value_heads;
    const std::int64_t rope_dim = config.latent->rope.rope_dim;
    const auto& pairs = config.latent->rope.pairs[static_cast<std::size_t>(layer)];
    const auto up = [&](const LinearView& down, const LinearView& projection, Matrix& y) {
        if (down.weight == nullptr) return apply(projection, work.normed, y);
        apply(down, work.normed, work.latent);
        apply(projection, work.latent, y);
    };
    Matrix k_rope;
    apply(view.q, work.normed, work.q);
    apply(view.k_rope, work.normed, k_rope);
    up(view.down_k, view.up_k, work.k);
    up(view.down_v, view.up_v, work.v);
    const std::int64_t tokens = work.q.rows();
    const std::int64_t group = config.group_size();
    rotate_heads(rotary, seq_len, heads, rope_dim, work.q.data(), work.q.cols(), tokens, [&](std::int64_t head) {
        return std::span<const std::int64_t>(pairs[static_cast<std::size_t>(head / group)]);
    });
    rotate_heads(rotary, seq_len, kv_heads, rope_dim, k_rope.data(), k_rope.cols(), tokens, [&](std::int64_t head) {
        return std::span<const std::int64_t>(pairs[static_cast<std::size_t>(head)]);
    });
    AttentionInput input = attention_shape(config, tokens, seq_len);
    input.parts[0] = {rows_of(work.q), rows_of(k_rope), rope_dim};
    input.parts[1] = {rows_of(work.q, heads * rope_dim), rows_of(work.k), config.head_dim - rope_dim};
    input.v = rows_of(work.v);
    causal_attention(input, work.attention.data());
}

/// down(silu(gate(x)) * up(x))
void mlp(const LayerView& view, LayerWorkspace& work) {
    apply(view.gate, work.normed, work.gate);
    apply(view.up, work.normed, work.up);
    parallel_for(work.gate.rows(), [&](std::int64_t token, std::vector<float>&) {
        auto gate = work.gate.row(token).array();
        gate = gate / (1.0F + (-gate).exp()) * work.up.row(token).array();
    });
    apply(view.down, work.gate, work.down);
}

}  // namespace

void rms_norm(const TensorView& weight, double eps, Eigen::Ref<const Matrix> x, Matrix& out) {
    Eigen::RowVectorXf scale(x.cols());
    to_float(weight, 0, {scale.data(), static_cast<std::size_t>(scale.size())});
    out.resize(x.rows(), x.cols());
    parallel_for(x.rows(), [&](std::int64_t token, std::vector<float>&) {
        const double mean = x.row(token).cast<double>().squaredNorm() / static_cast<double>(x.cols());
        out.row(token) = (x.row(token) * static_cast<float>(1.0 / std::sqrt(mean + eps))).cwiseProduct(scale);
    });
}

void forward_layer(const Model& model, std::int64_t layer, const RotaryTable& rotary, std::int64_t seq_len,
                   Eigen::Ref<Matrix> hidden, LayerWorkspace& work, const AttentionTap& tap) {
    const LayerView& view = model.layers[static_cast<std::size_t>(layer)];
    const ModelConfig& config = model.config;
    rms_norm(*view.input_layernorm, config.rms_norm_eps, hidden, work.normed);
    work.attention.resize(hidden.rows(), config.num_attention_heads * config.head_dim);
    if (view.attention) {
        original_attention(config, *view.attention, layer, rotary, seq_len, work, tap);
        apply(view.attention->o, work.attention, work.down);
    } else {
        expanded_latent_attention(config, *view.latent_attention, layer, rotary, seq_len, work);
        apply(view.latent_attention->o, work.attention, work.down);
    }
    hidden += work.down;
    rms_norm(*view.post_attention_layernorm, config.rms_norm_eps, hidden, work.normed);
    mlp(view, work);
    hidden += work.down;
}

}  // namespace mha2mla
