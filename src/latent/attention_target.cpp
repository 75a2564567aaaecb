#include "attention_target.hpp"

#include <algorithm>

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
    target.output = (behind - before) / model.rules(layer).residual_scale;
    const Vector bias = output_bias(model, layer);
    if (bias.size() > 0) target.output.rowwise() -= bias.transpose();
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
    return ((hidden.rowwise().squaredNorm() / width).array() + 1e-20F).inverse();
}

double squared_loss(const Matrix& output, const Matrix& target, const Vector& weight, Matrix* d_output) {
    const Matrix difference = output - target;
    const auto scale = 1.0 / static_cast<double>(output.size());
    const double loss =
        (difference.cast<double>().rowwise().squaredNorm().cwiseProduct(weight.cast<double>())).sum() * scale;
    if (d_output != nullptr) *d_output = weight.asDiagonal() * difference * static_cast<float>(2 * scale);
    return loss;
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
