#include "block.hpp"

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
    run_before_attention(view, at);
    run_latent(block.latent, block.seq_len, at.normed, at.attention, block.begins);
    at.attention_output = at.attention.output;
    if (const TensorView* bias = view.output_projection().bias) {
        at.attention_output.rowwise() += floats(*bias).transpose();
    }
    run_behind_attention(view, block.model.rules(block.layer), at);
}

void differentiate_block(const LatentBlock& block, const BlockActivations& at, Matrix& d_hidden, LatentGradient& to,
                         const SurroundingGradient& around, float* output_bias) {
    const LayerView& view = block.model.layer(block.layer);
    Matrix d_normed, d_through_attention;
    const Matrix d_attention = back_to_attention(view, block.model.rules(block.layer), at, d_hidden, d_normed, around);
    if (output_bias != nullptr) project_gradient({}, d_attention, {nullptr, output_bias});
    differentiate_latent(block.latent, block.seq_len, at.normed, at.attention, d_attention, to, &d_through_attention);
    d_normed += d_through_attention;
    back_to_input(view, at, d_normed, d_hidden, around);
}

}  // namespace mha2mla
