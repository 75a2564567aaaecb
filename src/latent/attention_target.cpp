#include "attention_target.hpp"

#include <algorithm>

#include "../forward/for_each_token.hpp"
#include "../forward/layer.hpp"
#include "../forward/norm.hpp"

namespace mha2mla {

void read_input(const Model& model, std::int64_t layer, Eigen::Ref<const Matrix> hidden, Matrix& input) {
    const NormView& view = model.layer(layer).attention_norm;
    if (view) return norm(view, hidden, input);
    input = hidden;
}

AttentionTarget original_attention(const Model& model, std::int64_t layer, const RotaryTable& rotary,
                                   std::int64_t seq_len, Matrix input) {
    AttentionTarget target;
    target.input = std::move(input);
    target.output.resize(target.input.rows(), target.input.cols());
    target.weight = Vector::Ones(target.input.rows());
    LayerWorkspace work;
    for (std::int64_t first = 0; first < target.input.rows(); first += seq_len) {
        work.normed = target.input.middleRows(first, seq_len);
        attend(model, layer, rotary, seq_len, work, {});
        target.output.middleRows(first, seq_len) = work.down;
    }
    const Vector bias = output_bias(model, layer);
    if (bias.size() > 0) target.output.rowwise() -= bias.transpose();
    return target;
}

AttentionTarget target_between(const Model& model, std::int64_t layer, const Matrix& before, const Matrix& behind) {
    AttentionTarget target;
    read_input(model, layer, before, target.input);
    const float scale = model.rules(layer).residual_scale;
    const Vector bias = output_bias(model, layer);
    target.output.resize(before.rows(), before.cols());
    for_each_token(before.rows(), [&](std::int64_t t) {
        target.output.row(t) = (behind.row(t) - before.row(t)) / scale;
        if (bias.size() > 0) target.output.row(t) -= bias.transpose();
    });
    target.weight = token_weights(behind);
    return target;
}

Vector output_bias(const Model& model, std::int64_t layer) {
    const TensorView* bias = model.layer(layer).original_attention().o.bias;
    if (bias == nullptr) return {};
    Vector result(bias->shape[0]);
    to_float(*bias, 0, {result.data(), static_cast<std::size_t>(result.size())});
    return result;
}

Vector token_weights(const Matrix& hidden) {
    const auto width = static_cast<float>(hidden.cols());
    Vector weights(hidden.rows());
    for_each_token(hidden.rows(),
                   [&](std::int64_t t) { weights(t) = 1 / (hidden.row(t).squaredNorm() / width + 1e-20F); });
    return weights;
}

double squared_loss(const Matrix& output, const Matrix& target, const Vector& weight, Matrix* d_output) {
    const auto scale = 1.0 / static_cast<double>(output.size());
    if (d_output != nullptr) d_output->resize(output.rows(), output.cols());
    Eigen::VectorXd losses(output.rows());
    for_each_token(output.rows(), [&](std::int64_t t) {
        const auto difference = output.row(t) - target.row(t);
        losses(t) = difference.cast<double>().squaredNorm() * static_cast<double>(weight(t));
        if (d_output != nullptr) d_output->row(t) = difference * (weight(t) * static_cast<float>(2 * scale));
    });
    return losses.sum() * scale;
}

double output_error(const LatentLayer& layer, const AttentionTarget& target, const OutputMeasure& measure) {
    LatentActivations activations;
    double sum = 0;
    for (std::int64_t first = 0; first < measure.tokens; first += measure.block_tokens) {
        const std::int64_t count = std::min(measure.block_tokens, measure.tokens - first);
        run_latent(layer, measure.seq_len, target.input.middleRows(first, count), activations);
        sum += static_cast<double>(count) * squared_loss(activations.output, target.output.middleRows(first, count),
                                                         target.weight.segment(first, count), nullptr);
    }
    return sum / static_cast<double>(measure.tokens);
}

}  // namespace mha2mla
