#include "block.hpp"

#include "branch.hpp"

namespace mha2mla {
namespace {

Vector floats(const TensorView& tensor) {
    Vector result(tensor.shape[0]);
    to_float(tensor, 0, {result.data(), static_cast<std::size_t>(result.size())});
    return result;
}

}  // namespace

void run_block(const LatentBlock& block, BlockActivations& at) {
    const LayerView& view = block.model.layer(block.layer);
    const LayerRules& rules = block.model.rules(block.layer);
    optional_norm(view.attention_norm, at.input, at.normed);
    run_latent(block.latent, block.seq_len, at.normed, at.attention);
    at.attention_output = at.attention.output;
    if (const TensorView* bias = view.original_attention().o.bias) {
        at.attention_output.rowwise() += floats(*bias).transpose();
    }
    optional_norm(view.attention_post_norm, at.attention_output, at.middle);
    at.middle = at.input + rules.residual_scale * at.middle;
    if (rules.parallel) {
        at.mlp_normed = at.normed;
    } else {
        optional_norm(view.mlp_norm, at.middle, at.mlp_normed);
    }
    mlp_keeping(rules.mlp, mlp_of(view), at.mlp_normed, at.mlp, at.mlp_output);
    optional_norm(view.mlp_post_norm, at.mlp_output, at.output);
    at.output = at.middle + rules.residual_scale * at.output;
}

void differentiate_block(const LatentBlock& block, const BlockActivations& at, Matrix& d_hidden, LatentGradient& to) {
    const LayerView& view = block.model.layer(block.layer);
    const LayerRules& rules = block.model.rules(block.layer);
    Matrix d_mlp_normed;
    mlp_gradient(rules.mlp, mlp_of(view), at.mlp_normed, at.mlp,
                 branch_gradient(view.mlp_post_norm, rules.residual_scale, at.mlp_output, d_hidden), d_mlp_normed);
    if (!rules.parallel) optional_norm_gradient(view.mlp_norm, at.middle, d_mlp_normed, d_hidden);
    Matrix d_normed;
    differentiate_latent(block.latent, block.seq_len, at.normed, at.attention,
                         branch_gradient(view.attention_post_norm, rules.residual_scale, at.attention_output, d_hidden),
                         to, &d_normed);
    if (rules.parallel) d_normed += d_mlp_normed;
    optional_norm_gradient(view.attention_norm, at.input, d_normed, d_hidden);
}

}  // namespace mha2mla
