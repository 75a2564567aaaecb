#include "original_block.hpp"

#include "../forward/kept_attention.hpp"
#include "branch.hpp"

namespace mha2mla {
namespace {

KeptShape shape_of(const ModelConfig& config, std::int64_t tokens, std::int64_t seq_len) {
    return {tokens / seq_len, seq_len, config.num_attention_heads, config.num_key_value_heads, config.head_dim, 0,
            config.head_dim};
}

MatrixIn in(const Matrix& x) { return {x.data(), x.cols()}; }
MatrixOut out(Matrix& x) { return {x.data(), x.cols()}; }

void rotate(const OriginalBlock& block, Turn turn, Matrix& x) {
    const std::int64_t dim = block.model.config.head_dim;
    rotate_heads(block.sequences.rotary, turn, block.sequences.seq_len, x.rows(),
                 {x.data(), x.cols(), x.cols() / dim, dim});
}

/// The derivative by what a projection read, added to dx if `add`, and those by its weights.
void back(const LinearView& view, const Matrix& x, const Matrix& dy, bool add, Matrix& dx, const LinearGradient& to) {
    project_gradient(x, dy, to);
    linear_back(view, dy.rows(), dy.data(), add, dx.data());
}

void differentiate_attention(const OriginalBlock& block, const OriginalActivations& at, const Matrix& d_attention,
                             Matrix& d_normed, const OriginalGradient& to) {
    const AttentionView& view = block.model.layer(block.layer).original_attention();
    Matrix d_mixed(at.mixed.rows(), at.mixed.cols());
    back(view.o, at.mixed, d_attention, false, d_mixed, to.o);
    Matrix d_q(at.q.rows(), at.q.cols()), d_k(at.k.rows(), at.k.cols()), d_v(at.v.rows(), at.v.cols());
    kept_attention_gradient(block.model.rules(block.layer).attention,
                            shape_of(block.model.config, at.q.rows(), block.sequences.seq_len),
                            {in(at.q), in(at.q), in(at.k), in(at.k), in(at.v)}, at.probabilities, d_mixed.data(),
                            {out(d_q), out(d_q), out(d_k), out(d_k), out(d_v)});
    rotate(block, Turn::back, d_q);
    rotate(block, Turn::back, d_k);
    Matrix d_q_projected = Matrix::Zero(d_q.rows(), d_q.cols());
    Matrix d_k_projected = Matrix::Zero(d_k.rows(), d_k.cols());
    optional_norm_gradient(view.q_norm, at.q_projected, d_q, d_q_projected, to.q_norm);
    optional_norm_gradient(view.k_norm, at.k_projected, d_k, d_k_projected, to.k_norm);
    back(view.q, at.normed, d_q_projected, true, d_normed, to.q);
    back(view.k, at.normed, d_k_projected, true, d_normed, to.k);
    back(view.v, at.normed, d_v, true, d_normed, to.v);
}

}  // namespace

void run_block(const OriginalBlock& block, OriginalActivations& at) {
    const LayerView& view = block.model.layer(block.layer);
    const LayerRules& rules = block.model.rules(block.layer);
    const AttentionView& attention = view.original_attention();
    run_before_attention(view, at);
    project(attention.q, at.normed, at.q_projected);
    project(attention.k, at.normed, at.k_projected);
    project(attention.v, at.normed, at.v);
    optional_norm(attention.q_norm, at.q_projected, at.q);
    optional_norm(attention.k_norm, at.k_projected, at.k);
    rotate(block, Turn::forward, at.q);
    rotate(block, Turn::forward, at.k);
    KeptShape shape = shape_of(block.model.config, at.input.rows(), block.sequences.seq_len);
    shape.begins = block.sequences.begins;
    at.probabilities.resize(shape.probabilities());
    at.mixed.resize(at.q.rows(), at.q.cols());
    kept_attention(rules.attention, shape, {in(at.q), in(at.q), in(at.k), in(at.k), in(at.v)}, at.probabilities,
                   at.mixed.data());
    project(attention.o, at.mixed, at.attention_output);
    run_behind_attention(view, rules, at);
}

void differentiate_block(const OriginalBlock& block, const OriginalActivations& at, Matrix& d_hidden,
                         const OriginalGradient& to) {
    const LayerView& view = block.model.layer(block.layer);
    Matrix d_normed;
    const Matrix d_attention =
        back_to_attention(view, block.model.rules(block.layer), at, d_hidden, d_normed, to.around);
    differentiate_attention(block, at, d_attention, d_normed, to);
    back_to_input(view, at, d_normed, d_hidden, to.around);
}

void embedding_gradient(float scale, std::span<const TokenId> ids, const Matrix& d_hidden, float* to) {
    for (std::size_t t = 0; t < ids.size(); ++t) {
        Eigen::Map<Eigen::RowVectorXf>(to + static_cast<std::int64_t>(ids[t]) * d_hidden.cols(), d_hidden.cols()) +=
            scale * d_hidden.row(static_cast<Eigen::Index>(t));
    }
}

}  // namespace mha2mla
