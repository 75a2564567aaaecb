#include "layer.hpp"

#include <algorithm>

#include "../linalg/elementwise.hpp"
#include "../support/parallel.hpp"
#include "attention.hpp"
#include "linear.hpp"

namespace mha2mla {
namespace {

constexpr std::int64_t kTokenBlock = 64;   // tokens of one item where threads share work on single tokens
constexpr std::int64_t kMlpTokens = 2048;  // a sequence may be longer, and the MLP is wide

/// Calls body(token) for every token, a few at a time on each thread.
template <typename Body>
void for_each_token(std::int64_t tokens, const Body& body) {
    parallel_for((tokens + kTokenBlock - 1) / kTokenBlock, [&](std::int64_t block, std::vector<float>&) {
        const std::int64_t end = std::min(tokens, (block + 1) * kTokenBlock);
        for (std::int64_t token = block * kTokenBlock; token < end; ++token) body(token);
    });
}

void apply(const LinearView& view, const Matrix& x, Matrix& y) {
    y.resize(x.rows(), view.out_features());
    linear(view, x.rows(), x.data(), y.data());
}

/// Rotates every head of every token. @param x [tokens, heads * dim], the columns of `pairs_of_head` per head.
template <typename PairsOfHead>
void rotate_heads(const RotaryTable& rotary, std::int64_t seq_len, std::int64_t heads, std::int64_t dim, float* x,
                  std::int64_t stride, std::int64_t tokens, const PairsOfHead& pairs_of_head) {
    if (dim == 0) return;
    for_each_token(tokens, [&](std::int64_t token) {
        for (std::int64_t head = 0; head < heads; ++head) {
            rotary.rotate(x + token * stride + head * dim, token % seq_len, pairs_of_head(head));
        }
    });
}

AttentionInput attention_shape(const ModelConfig& config, std::int64_t tokens, std::int64_t seq_len) {
    AttentionInput input{};
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
    if (tap) tap(layer, {work.normed, work.q, work.k});
    apply(view.v, work.normed, work.v);
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
    apply(view.q, work.normed, work.q);
    apply(view.k_rope, work.normed, work.k_rope);
    up(view.down_k, view.up_k, work.k);
    up(view.down_v, view.up_v, work.v);
    const std::int64_t tokens = work.q.rows();
    const std::int64_t group = config.group_size();
    rotate_heads(rotary, seq_len, heads, rope_dim, work.q.data(), work.q.cols(), tokens, [&](std::int64_t head) {
        return std::span<const std::int64_t>(pairs[static_cast<std::size_t>(head / group)]);
    });
    rotate_heads(
        rotary, seq_len, kv_heads, rope_dim, work.k_rope.data(), work.k_rope.cols(), tokens,
        [&](std::int64_t head) { return std::span<const std::int64_t>(pairs[static_cast<std::size_t>(head)]); });
    AttentionInput input = attention_shape(config, tokens, seq_len);
    input.parts[0] = {rows_of(work.q), rows_of(work.k_rope), rope_dim};
    input.parts[1] = {rows_of(work.q, heads * rope_dim), rows_of(work.k), config.head_dim - rope_dim};
    input.v = rows_of(work.v);
    causal_attention(input, work.attention.data());
}

}  // namespace

void mlp(const LayerView& view, LayerWorkspace& work) {
    const std::int64_t tokens = work.normed.rows();
    const std::int64_t width = view.gate.out_features();
    work.gate.resize(std::min(tokens, kMlpTokens), width);
    work.up.resize(std::min(tokens, kMlpTokens), width);
    work.down.resize(tokens, work.normed.cols());
    for (std::int64_t first = 0; first < tokens; first += kMlpTokens) {
        const std::int64_t count = std::min(kMlpTokens, tokens - first);
        const float* x = work.normed.data() + first * work.normed.cols();
        linear(view.gate, count, x, work.gate.data());
        linear(view.up, count, x, work.up.data());
        for_each_token(count, [&](std::int64_t token) {
            silu_multiply(work.gate.data() + token * width, work.up.data() + token * width, width);
        });
        linear(view.down, count, work.gate.data(), work.down.data() + first * work.down.cols());
    }
}

std::uint64_t workspace_bytes(const ModelConfig& config, std::int64_t tokens, int threads) {
    const std::int64_t query = config.num_attention_heads * config.head_dim;
    const std::int64_t key = config.num_key_value_heads * config.head_dim;
    const std::int64_t widest = std::max({config.hidden_size, config.intermediate_size, query});
    const std::int64_t block = tokens * (2 * config.hidden_size + 2 * query + 2 * key) +
                               2 * std::min(tokens, kMlpTokens) * config.intermediate_size;
    const std::int64_t thread =
        std::max(attention_scratch(config.group_size(), config.head_dim), linear_scratch(widest));
    return static_cast<std::uint64_t>(block + threads * thread) * sizeof(float);
}

void rms_norm(const TensorView& weight, double eps, Eigen::Ref<const Matrix> x, Matrix& out) {
    Eigen::RowVectorXf scale(x.cols());
    to_float(weight, 0, {scale.data(), static_cast<std::size_t>(scale.size())});
    out.resize(x.rows(), x.cols());
    for_each_token(x.rows(), [&](std::int64_t token) {
        rms_norm_row(x.row(token).data(), scale.data(), eps, x.cols(), out.row(token).data());
    });
}

void forward_to_tap(const Model& model, std::int64_t layer, Eigen::Ref<const Matrix> hidden, LayerWorkspace& work,
                    const AttentionTap& tap) {
    const LayerView& view = model.layers[static_cast<std::size_t>(layer)];
    rms_norm(*view.input_layernorm, model.config.rms_norm_eps, hidden, work.normed);
    apply(view.attention->q, work.normed, work.q);
    apply(view.attention->k, work.normed, work.k);
    tap(layer, {work.normed, work.q, work.k});
}

void attend(const Model& model, std::int64_t layer, const RotaryTable& rotary, std::int64_t seq_len,
            LayerWorkspace& work, const AttentionTap& tap) {
    const LayerView& view = model.layers[static_cast<std::size_t>(layer)];
    const ModelConfig& config = model.config;
    work.attention.resize(work.normed.rows(), config.num_attention_heads * config.head_dim);
    if (view.attention) {
        original_attention(config, *view.attention, layer, rotary, seq_len, work, tap);
        apply(view.attention->o, work.attention, work.down);
    } else {
        expanded_latent_attention(config, *view.latent_attention, layer, rotary, seq_len, work);
        apply(view.latent_attention->o, work.attention, work.down);
    }
}

void forward_attention(const Model& model, std::int64_t layer, const RotaryTable& rotary, std::int64_t seq_len,
                       Eigen::Ref<Matrix> hidden, LayerWorkspace& work, const AttentionTap& tap) {
    const LayerView& view = model.layers[static_cast<std::size_t>(layer)];
    rms_norm(*view.input_layernorm, model.config.rms_norm_eps, hidden, work.normed);
    attend(model, layer, rotary, seq_len, work, tap);
    hidden += work.down;
}

void forward_mlp(const Model& model, std::int64_t layer, Eigen::Ref<Matrix> hidden, LayerWorkspace& work) {
    const LayerView& view = model.layers[static_cast<std::size_t>(layer)];
    rms_norm(*view.post_attention_layernorm, model.config.rms_norm_eps, hidden, work.normed);
    mlp(view, work);
    hidden += work.down;
}

void forward_layer(const Model& model, std::int64_t layer, const RotaryTable& rotary, std::int64_t seq_len,
                   Eigen::Ref<Matrix> hidden, LayerWorkspace& work, const AttentionTap& tap) {
    forward_attention(model, layer, rotary, seq_len, hidden, work, tap);
    forward_mlp(model, layer, hidden, work);
}

}  // namespace mha2mla
