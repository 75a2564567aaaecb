#include "block.hpp"

#include <algorithm>

#include "../forward/for_each_token.hpp"
#include "../forward/head.hpp"
#include "../forward/softmax.hpp"

namespace mha2mla {
namespace {

Vector floats(const TensorView& tensor) {
    Vector result(tensor.shape[0]);
    to_float(tensor, 0, {result.data(), static_cast<std::size_t>(result.size())});
    return result;
}

}  // namespace

void run_block(const Model& model, std::int64_t layer, const LatentLayer& latent, const RotaryTable& rotary,
               std::int64_t seq_len, BlockActivations& at) {
    const LayerView& view = model.layer(layer);
    norm(view.attention_norm, at.input, at.normed);
    run_latent(latent, rotary, seq_len, at.normed, at.attention);
    at.middle = at.input + at.attention.output;
    if (const TensorView* bias = view.original_attention().o.bias) at.middle.rowwise() += floats(*bias).transpose();
    norm(view.mlp_norm, at.middle, at.mlp_normed);
    mlp_keeping(model.rules(layer).mlp, mlp_of(view), at.mlp_normed, at.mlp, at.output);
    at.output += at.middle;
}

void differentiate_block(const Model& model, std::int64_t layer, const LatentLayer& latent, const RotaryTable& rotary,
                         std::int64_t seq_len, const BlockActivations& at, Matrix& d_hidden, LatentWeights& to) {
    const LayerView& view = model.layer(layer);
    Matrix d_normed;
    mlp_gradient(model.rules(layer).mlp, mlp_of(view), at.mlp_normed, at.mlp, d_hidden, d_normed);
    norm_gradient(view.mlp_norm, at.middle, d_normed, d_hidden);
    differentiate_latent(latent, rotary, seq_len, at.normed, at.attention, d_hidden, to, &d_normed);
    norm_gradient(view.attention_norm, at.input, d_normed, d_hidden);
}

double distribution_loss(const Model& model, const Matrix& output, const Matrix& wanted, Matrix& d_output) {
    const HeadView view = head_of(model);
    const std::int64_t vocab = view.lm_head.out_features();
    const auto share = static_cast<float>(1.0 / static_cast<double>(output.rows()));
    Matrix normed, logits, wanted_normed, wanted_logits;
    Matrix d_normed(output.rows(), output.cols());
    Vector losses(output.rows());
    for (std::int64_t first = 0; first < output.rows(); first += kHeadTokens) {
        const std::int64_t count = std::min(kHeadTokens, output.rows() - first);
        head(model.config.rules, view, output.middleRows(first, count), normed, logits);
        head(model.config.rules, view, wanted.middleRows(first, count), wanted_normed, wanted_logits);
        for_each_token(count, [&](std::int64_t t) {
            auto ours = logits.row(t).array();
            auto theirs = wanted_logits.row(t).array();
            const Eigen::Array<float, 1, Eigen::Dynamic> apart = theirs - ours;
            const double sums = softmax(logits.row(t).data(), vocab) - softmax(wanted_logits.row(t).data(), vocab);
            losses(first + t) = static_cast<float>((theirs * apart).cast<double>().sum() + sums);
            ours = (ours - theirs) * share;
        });
        logits_gradient(model.config.rules, view.lm_head, normed, logits, logits, d_normed.middleRows(first, count));
    }
    d_output.setZero(output.rows(), output.cols());
    norm_gradient(view.norm, output, d_normed, d_output);
    return losses.cast<double>().mean();
}

}  // namespace mha2mla
