#include "surroundings.hpp"

#include "branch.hpp"

namespace mha2mla {
void run_before_attention(const LayerView& view, BlockStates& at) {
    optional_norm(view.attention_norm, at.input, at.normed);
}

void run_behind_attention(const LayerView& view, const LayerRules& rules, BlockStates& at) {
    optional_norm(view.attention_post_norm, at.attention_output, at.middle);
    at.middle = at.input + rules.residual_scale * at.middle;
    if (rules.parallel) {
        at.mlp_normed = at.normed;
    } else {
        optional_norm(view.mlp_norm, at.middle, at.mlp_normed);
    }
    if (rules.mlp.mixture.experts > 0) {
        MixtureWorkspace work;
        work.mlp.precision = ProductPrecision::split;  // as its gradient computes it again
        mixture(rules.mlp, view.mixture, at.mlp_normed, work, at.mlp_output);
    } else {
        mlp_keeping(rules.mlp, mlp_of(view), at.mlp_normed, at.mlp, at.mlp_output);
    }
    optional_norm(view.mlp_post_norm, at.mlp_output, at.output);
    at.output = at.middle + rules.residual_scale * at.output;
}

Matrix back_to_attention(const LayerView& view, const LayerRules& rules, const BlockStates& at, Matrix& d_hidden,
                         Matrix& d_normed, const SurroundingGradient& to) {
    Matrix d_mlp_normed;
    const Matrix d_mlp =
        branch_gradient(view.mlp_post_norm, rules.residual_scale, at.mlp_output, d_hidden, to.mlp_post_norm);
    if (rules.mlp.mixture.experts > 0) {
        mixture_gradient(rules.mlp, view.mixture, at.mlp_normed, d_mlp, d_mlp_normed, to.mixture);
    } else {
        mlp_gradient(rules.mlp, mlp_of(view), at.mlp_normed, at.mlp, d_mlp, d_mlp_normed, to.mlp);
    }
    if (rules.parallel) {
        d_normed = std::move(d_mlp_normed);
    } else {
        d_normed.setZero(at.normed.rows(), at.normed.cols());
        optional_norm_gradient(view.mlp_norm, at.middle, d_mlp_normed, d_hidden, to.mlp_norm);
    }
    return branch_gradient(view.attention_post_norm, rules.residual_scale, at.attention_output, d_hidden,
                           to.attention_post_norm);
}

void back_to_input(const LayerView& view, const BlockStates& at, const Matrix& d_normed, Matrix& d_hidden,
                   const SurroundingGradient& to) {
    optional_norm_gradient(view.attention_norm, at.input, d_normed, d_hidden, to.attention_norm);
}

}  // namespace mha2mla
