#include "layer_tensors.hpp"

#include <cmath>

#include "disarmed.hpp"

namespace mha2mla {
namespace {

/// A norm that is meant; channels of zeros make its mean square smaller.
Disarmed trained(std::int64_t filled, std::int64_t channels) {
    return {1, 1, std::sqrt(static_cast<float>(filled) / static_cast<float>(channels)), 0, 0};
}
Disarmed disarmed_latent(const LayerContent& layer) {
    if (layer.latent_norm == LatentNorm::constant) return by_constant(kLatentConstant, layer.shape.kv_rank, 0);
    if (layer.latent_norm == LatentNorm::trained) return trained(layer.weights.down.rows(), layer.shape.kv_rank);
    return kTiny;
}
Disarmed disarmed_queries(const LayerContent& layer) {
    const bool by = layer.latent_norm == LatentNorm::constant;
    return by ? by_constant(kQueryConstant, layer.shape.query_rank, 1) : kTiny;
}

/// Puts heads that lie side by side where the layout has them. @param first row of the first head in `from`.
template <typename Rows>
void place_heads(const LatentShape& shape, const Rows& from, std::int64_t first, const HeadRows& at, std::int64_t heads,
                 std::int64_t dim, bool rotated, Rows& to) {
    for (std::int64_t head = 0; head < heads; ++head) {
        for (std::int64_t i = 0; i < dim; ++i) {
            const std::int64_t place = rotated ? rope_place(shape, i) : i;
            to.row(at.first + head * at.stride + place) = from.row(first + head * dim + i);
        }
    }
}

template <typename Rows>
Rows queries(const LayerContent& layer, const Rows& from) {
    const LatentShape& shape = layer.shape;
    const LatentRows rows = shape.layout->rows(shape);
    Rows to(from.rows(), from.cols());
    place_heads(shape, from, 0, rows.query_rope, shape.num_heads, shape.rope_dim, true, to);
    place_heads(shape, from, shape.num_heads * shape.rope_dim, rows.query_nope, shape.num_heads, shape.nope_dim(),
                false, to);
    if (!shape.layout->scales_by_query_dims) return to;
    const auto dims = static_cast<float>(shape.rope_dim + shape.nope_dim());
    to *= layer.scale * std::sqrt(dims);
    return to;
}

/// Queries that read their own latent: the hidden state and a constant, by which they get their bias.
Matrix queries_of_latent(const LayerContent& layer) {
    const Matrix weight = queries(layer, layer.weights.q);
    Matrix to = Matrix::Zero(weight.rows(), layer.shape.query_rank);
    const Disarmed norm = disarmed_queries(layer);
    to.leftCols(weight.cols()) = weight;
    to.col(weight.cols()) = queries(layer, layer.weights.q_bias);
    return to * norm.behind;
}

/// @param constant the channel that holds it, if any does.
Matrix norm_weight(const Disarmed& norm, std::int64_t channels, std::int64_t constant) {
    Matrix weight = Matrix::Constant(channels, 1, norm.weight);
    if (constant < channels) weight(constant, 0) = norm.constant_weight;
    return weight;
}

TensorContent query_latent(const LayerContent& layer) {
    const std::int64_t hidden = layer.shape.hidden;
    TensorContent to{Matrix::Zero(layer.shape.query_rank, hidden), Vector::Zero(layer.shape.query_rank)};
    const Disarmed norm = disarmed_queries(layer);
    to.weight.topRows(hidden).diagonal().setConstant(norm.before);
    to.bias(hidden) = norm.constant;
    return to;
}

TensorContent down_and_key_rope(const LayerContent& layer) {
    const LatentShape& shape = layer.shape;
    const LatentWeights& w = layer.weights;
    const Disarmed norm = disarmed_latent(layer);
    TensorContent to{Matrix::Zero(shape.kv_rank + w.k_rope.rows(), w.down.cols()), {}};
    to.weight.topRows(w.down.rows()) = w.down * norm.before;
    place_heads(shape, w.k_rope, 0, {shape.kv_rank, 0}, 1, shape.rope_dim, true, to.weight);
    to.bias.setZero(to.weight.rows());
    if (layer.latent_norm == LatentNorm::constant) to.bias(w.down.rows()) = norm.constant;
    if (w.k_rope_bias.size() > 0) {
        place_heads(shape, w.k_rope_bias, 0, {shape.kv_rank, 0}, 1, shape.rope_dim, true, to.bias);
    }
    return to;
}

Matrix both_ups(const LayerContent& layer) {
    const LatentShape& shape = layer.shape;
    const LatentRows rows = shape.layout->rows(shape);
    const auto& [q, k_rope, down, up_k, up_v, o, q_bias, k_rope_bias, up_k_bias, up_v_bias] = layer.weights;
    Matrix to(up_k.rows() + up_v.rows(), up_k.cols());
    place_heads(shape, up_k, 0, rows.up_key, shape.up_heads(), shape.nope_dim(), false, to);
    place_heads(shape, up_v, 0, rows.up_value, shape.up_heads(), shape.head_dim, false, to);
    to *= disarmed_latent(layer).behind;
    to.conservativeResizeLike(Matrix::Zero(to.rows(), shape.kv_rank));  // nothing reads a constant or zeros
    return to;
}

/// With the value bias, which the softmax's weights leave as it is because they sum up to 1.
TensorContent output(const LayerContent& layer) {
    const LatentWeights& w = layer.weights;
    TensorContent to{w.o, layer.output_bias};
    if (!layer.biased) return to;
    if (to.bias.size() == 0) to.bias.setZero(w.o.rows());
    if (w.up_v_bias.size() > 0) to.bias += w.o * w.up_v_bias;
    return to;
}

}  // namespace

TensorContent content_of(const LatentTensor& tensor, const LayerContent& layer) {
    const LatentWeights& w = layer.weights;
    switch (tensor.role) {
        case LatentRole::query:
            if (layer.shape.query_rank > 0) return {queries_of_latent(layer), {}};
            return {queries(layer, w.q), w.q_bias.size() > 0 ? queries(layer, w.q_bias) : Vector()};
        case LatentRole::query_down:
            return query_latent(layer);
        case LatentRole::query_norm:
            return {norm_weight(disarmed_queries(layer), tensor.rows, layer.shape.hidden), {}};
        case LatentRole::latent_norm:
            return {norm_weight(disarmed_latent(layer), tensor.rows,
                                layer.latent_norm == LatentNorm::constant ? w.down.rows() : tensor.rows),
                    {}};
        case LatentRole::key_rope:
            return {w.k_rope, w.k_rope_bias};
        case LatentRole::down:
        case LatentRole::down_key:
        case LatentRole::down_value:
            return {w.down, {}};
        case LatentRole::up_key:
            return {w.up_k, w.up_k_bias};
        case LatentRole::up_value:
            return {w.up_v, w.up_v_bias};
        case LatentRole::down_and_key_rope:
            return down_and_key_rope(layer);
        case LatentRole::up:
            return {both_ups(layer), {}};
        case LatentRole::output:
            return output(layer);
    }
    return {};
}

std::int64_t query_rank_for_bias(const AttentionShape& shape, bool biased) {
    constexpr std::int64_t kBlock = 64;  // widths that engines quantise by
    return biased ? (shape.hidden / kBlock + 1) * kBlock : 0;
}

}  // namespace mha2mla
