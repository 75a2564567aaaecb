#include "layer.hpp"

#include <algorithm>

#include "attention.hpp"
#include "for_each_token.hpp"
#include "head_norms.hpp"
#include "latent_projections.hpp"
#include "norm.hpp"

namespace mha2mla {
namespace {

AttentionInput attention_shape(const ModelConfig& config, std::int64_t layer, std::int64_t tokens,
                               std::int64_t seq_len) {
    AttentionInput input{};
    input.rule = config.rules.layers[static_cast<std::size_t>(layer)].attention;
    input.sequences = tokens / seq_len;
    input.seq_len = seq_len;
    input.num_heads = config.num_attention_heads;
    input.num_kv_heads = config.num_key_value_heads;
    input.head_dim = config.head_dim;
    return input;
}

MatrixIn rows_of(const Matrix& matrix, const HeadRows& heads = {}) {
    return {matrix.data() + heads.first, matrix.cols()};
}

void norm_queries_and_keys(const AttentionView& view, Matrix& q, Matrix& k) {
    if (view.q_norm) norm(view.q_norm, q, q);
    if (view.k_norm) norm(view.k_norm, k, k);
}

void original_attention(const ModelConfig& config, const AttentionView& view, std::int64_t layer,
                        const RotaryTable& rotary, std::int64_t seq_len, LayerWorkspace& work,
                        const AttentionTap& tap) {
    project_original(view, work.normed, work.q, work.k, work.v);
    if (tap) tap(layer, {work.normed, work.q, work.k});
    const std::int64_t tokens = work.q.rows();
    rotate_heads(rotary, Turn::forward, seq_len, tokens,
                 {work.q.data(), work.q.cols(), config.num_attention_heads, config.head_dim});
    rotate_heads(rotary, Turn::forward, seq_len, tokens,
                 {work.k.data(), work.k.cols(), config.num_key_value_heads, config.head_dim});
    AttentionInput input = attention_shape(config, layer, tokens, seq_len);
    input.parts[0] = {rows_of(work.q), rows_of(work.k), config.head_dim, config.head_dim, config.head_dim};
    input.v = rows_of(work.v);
    input.v_step = config.head_dim;
    causal_attention(input, work.attention.data());
}

/// MLA in its expanded form (MHA2MLA, eq. 8-10): keys and values are computed from the latent, then attended to as
/// usual. The scale stays that of the original head_dim.
void expanded_latent_attention(const ModelConfig& config, const LatentAttentionView& view, std::int64_t layer,
                               const RotaryTable& rotary, std::int64_t seq_len, LayerWorkspace& work) {
    const LatentShape shape = config.latent_shape();
    const LatentRows rows = shape.layout->rows(shape);
    const auto pairs = config.latent->layer_pairs(layer);
    const auto up = [&](const LinearView& down, const LinearView& projection, Matrix& y) {
        project(projection, down.weight == nullptr ? work.normed : work.latent, y);
    };
    project_latent_input(view, work.normed, {work.q, work.low, work.k_rope, work.latent});
    up(view.down_k, view.up_k, work.k);
    if (!view.one_up()) {
        if (view.down_v.weight != nullptr) project_latent(view, view.down_v, work.normed, work.latent);
        up(view.down_v, view.up_v, work.v);
    }
    const Matrix& values = view.one_up() ? work.k : work.v;
    const std::int64_t tokens = work.q.rows();
    const auto norm_heads = [&] {
        const auto norms = head_norms(view.head_q_norm, view.head_k_norm, shape, pairs);
        if (!norms) return;
        const HeadColumns query_rope = head_columns(work.q, shape.num_heads, rows.query_rope),
                          query_nope = head_columns(work.q, shape.num_heads, rows.query_nope),
                          key_rope = head_columns(work.k_rope, shape.rope_keys(), {0, shape.rope_dim}),
                          key_nope = head_columns(work.k, shape.up_heads(), rows.up_key);
        norms->query.apply(norms->query.scales(tokens, query_rope, query_nope), query_rope, query_nope);
        norms->key.apply(norms->key.scales(tokens, key_rope, key_nope), key_rope, key_nope);
    };
    const bool rotates_first = config.rules.layers[static_cast<std::size_t>(layer)].attention.rotates_before_norm;
    if (!rotates_first) norm_heads();
    const auto rotate = [&](Matrix& x, std::int64_t heads, const HeadRows& at) {
        rotate_heads(rotary, Turn::forward, seq_len, tokens, {x.data() + at.first, x.cols(), heads, at.stride}, pairs);
    };
    rotate(work.q, shape.num_heads, rows.query_rope);
    rotate(work.k_rope, shape.rope_keys(), {0, shape.rope_dim});
    if (rotates_first) norm_heads();
    AttentionInput input = attention_shape(config, layer, tokens, seq_len);
    input.num_kv_heads = shape.up_heads();
    input.parts[0] = {rows_of(work.q, rows.query_rope), rows_of(work.k_rope), shape.rope_dim, rows.query_rope.stride,
                      shape.rope_keys() == shape.up_heads() ? shape.rope_dim : 0};
    input.parts[1] = {rows_of(work.q, rows.query_nope), rows_of(work.k, rows.up_key), shape.nope_dim(),
                      rows.query_nope.stride, rows.up_key.stride};
    input.v = rows_of(values, rows.up_value);
    input.v_step = rows.up_value.stride;
    causal_attention(input, work.attention.data());
}

/// work.attention = softmax·v of work.normed.
void mix_sequences(const Model& model, std::int64_t layer, const RotaryTable& rotary, std::int64_t seq_len,
                   LayerWorkspace& work, const AttentionTap& tap) {
    const LayerView& view = model.layer(layer);
    if (view.latent()) {
        expanded_latent_attention(model.config, view.latent_attention(), layer, rotary, seq_len, work);
    } else {
        original_attention(model.config, view.original_attention(), layer, rotary, seq_len, work, tap);
    }
}

/// work.down = the output projection of what `mix` sets work.attention to.
void mix_and_project(const Model& model, std::int64_t layer, LayerWorkspace& work, const std::function<void()>& mix) {
    work.attention.resize(work.normed.rows(), model.config.num_attention_heads * model.config.head_dim);
    mix();
    project(model.layer(layer).output_projection(), work.attention, work.down, work.mlp.precision);
}

/// work.normed = norm(hidden), or the hidden states themselves where there is no norm.
void read_normed(const NormView& view, Eigen::Ref<const Matrix> hidden, LayerWorkspace& work) {
    if (view) return norm(view, hidden, work.normed);
    work.normed = hidden;
}

/// hidden += scale · norm(work.down)
void add_down(const NormView& post, float scale, LayerWorkspace& work, Eigen::Ref<Matrix> hidden) {
    if (post) norm(post, work.down, work.down);
    for_each_token(hidden.rows(), [&](std::int64_t t) { hidden.row(t) += scale * work.down.row(t); });
}

}  // namespace

std::uint64_t workspace_bytes(const ModelConfig& config, std::int64_t tokens, int threads) {
    const std::int64_t query = config.num_attention_heads * config.head_dim;
    const std::int64_t key = config.num_key_value_heads * config.head_dim;
    std::int64_t width = config.intermediate_size, mixture = 0;
    for (const LayerRules& rules : config.rules.layers) {
        const MixtureRule& rule = rules.mlp.mixture;
        width = std::max({width, rule.width, rule.shared_width});
        mixture = std::max(mixture, mixture_scratch(rule, config.hidden_size));
    }
    const std::int64_t widest = std::max({config.hidden_size, width, query});
    const std::int64_t block =
        tokens * (2 * config.hidden_size + 2 * query + 2 * key + mixture) + 2 * std::min(tokens, kMlpTokens) * width;
    const std::int64_t thread =
        std::max(attention_scratch(config.group_size(), config.head_dim, config.head_dim), linear_scratch(widest));
    return static_cast<std::uint64_t>(block + threads * thread) * sizeof(float);
}

void project_queries_and_keys(const AttentionView& view, const Matrix& input, Matrix& q, Matrix& k) {
    project(input, {{view.q, q}, {view.k, k}});
    norm_queries_and_keys(view, q, k);
}

void project_original(const AttentionView& view, const Matrix& input, Matrix& q, Matrix& k, Matrix& v) {
    project(input, {{view.q, q}, {view.k, k}, {view.v, v}});
    norm_queries_and_keys(view, q, k);
}

void forward_to_tap(const Model& model, std::int64_t layer, Eigen::Ref<const Matrix> hidden, LayerWorkspace& work,
                    const AttentionTap& tap) {
    const LayerView& view = model.layer(layer);
    read_normed(view.attention_norm, hidden, work);
    project_queries_and_keys(view.original_attention(), work.normed, work.q, work.k);
    tap(layer, {work.normed, work.q, work.k});
}

void attend(const Model& model, std::int64_t layer, const RotaryTable& rotary, std::int64_t seq_len,
            LayerWorkspace& work, const AttentionTap& tap) {
    mix_and_project(model, layer, work, [&] { mix_sequences(model, layer, rotary, seq_len, work, tap); });
}

void around_attention(const Model& model, std::int64_t layer, Eigen::Ref<Matrix> hidden, LayerWorkspace& work,
                      const std::function<void()>& mix) {
    const LayerView& view = model.layer(layer);
    read_normed(view.attention_norm, hidden, work);
    mix_and_project(model, layer, work, mix);
    add_down(view.attention_post_norm, model.rules(layer).residual_scale, work, hidden);
}

void forward_attention(const Model& model, std::int64_t layer, const RotaryTable& rotary, std::int64_t seq_len,
                       Eigen::Ref<Matrix> hidden, LayerWorkspace& work, const AttentionTap& tap) {
    around_attention(model, layer, hidden, work, [&] { mix_sequences(model, layer, rotary, seq_len, work, tap); });
}

void forward_mlp(const Model& model, std::int64_t layer, Eigen::Ref<Matrix> hidden, LayerWorkspace& work) {
    const LayerView& view = model.layer(layer);
    const LayerRules& rules = model.rules(layer);
    if (!rules.parallel) read_normed(view.mlp_norm, hidden, work);
    if (rules.mlp.mixture.experts > 0) {
        mixture(rules.mlp, view.mixture, work.normed, work.mixture, work.down);
    } else {
        mlp(rules.mlp, mlp_of(view), work.normed, work.mlp, work.down);
    }
    add_down(view.mlp_post_norm, rules.residual_scale, work, hidden);
}

void forward_layer(const Model& model, std::int64_t layer, const RotaryTable& rotary, std::int64_t seq_len,
                   Eigen::Ref<Matrix> hidden, LayerWorkspace& work, const AttentionTap& tap) {
    forward_attention(model, layer, rotary, seq_len, hidden, work, tap);
    forward_mlp(model, layer, hidden, work);
}

}  // namespace mha2mla
