#include "block.hpp"

#include "../forward/norm.hpp"

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
    norm(view.attention_norm, at.input, at.normed);
    run_latent(block.latent, block.seq_len, at.normed, at.attention);
    at.middle = at.input + at.attention.output;
    if (const TensorView* bias = view.original_attention().o.bias) at.middle.rowwise() += floats(*bias).transpose();
    norm(view.mlp_norm, at.middle, at.mlp_normed);
    mlp_keeping(block.model.rules(block.layer).mlp, mlp_of(view), at.mlp_normed, at.mlp, at.output);
    at.output += at.middle;
}

void differentiate_block(const LatentBlock& block, const BlockActivations& at, Matrix& d_hidden, LatentGradient& to) {
    const LayerView& view = block.model.layer(block.layer);
    Matrix d_normed;
    mlp_gradient(block.model.rules(block.layer).mlp, mlp_of(view), at.mlp_normed, at.mlp, d_hidden, d_normed);
    norm_gradient(view.mlp_norm, at.middle, d_normed, d_hidden);
    differentiate_latent(block.latent, block.seq_len, at.normed, at.attention, d_hidden, to, &d_normed);
    norm_gradient(view.attention_norm, at.input, d_normed, d_hidden);
}

}  // namespace mha2mla
