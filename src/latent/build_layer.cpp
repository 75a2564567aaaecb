#include "build_layer.hpp"

#include <numeric>

#include "../model/head_order.hpp"

namespace mha2mla {
namespace {

Matrix gathered(const Matrix& from, const std::vector<std::int64_t>& rows) {
    Matrix result(static_cast<Eigen::Index>(rows.size()), from.cols());
    for (std::size_t i = 0; i < rows.size(); ++i) result.row(static_cast<Eigen::Index>(i)) = from.row(rows[i]);
    return result;
}

/// Nothing where the family has no such bias.
Vector gathered_bias(const TensorView* bias, const std::vector<std::int64_t>& rows) {
    if (bias == nullptr) return {};
    std::vector<float> all(static_cast<std::size_t>(bias->shape[0]));
    to_finite_float(*bias, 0, all);
    Vector result(static_cast<Eigen::Index>(rows.size()));
    for (std::size_t i = 0; i < rows.size(); ++i) {
        result(static_cast<Eigen::Index>(i)) = all[static_cast<std::size_t>(rows[i])];
    }
    return result;
}

std::vector<std::int64_t> in_order(std::int64_t count) {
    std::vector<std::int64_t> rows(static_cast<std::size_t>(count));
    std::iota(rows.begin(), rows.end(), 0);
    return rows;
}

Vector whole_bias(const TensorView* bias) { return gathered_bias(bias, in_order(bias == nullptr ? 0 : bias->rows())); }

LatentShape per_head_shape(const Model& model, const LayerPairs& pairs) {
    return model.config.latent_shape(static_cast<std::int64_t>(2 * pairs.front().size()), 0, Factorization::joint);
}

}  // namespace

Matrix all_rows(const TensorView& tensor) {
    Matrix result(tensor.rows(), tensor.cols());
    to_finite_float(tensor, 0, {result.data(), static_cast<std::size_t>(result.size())});
    return result;
}

void read_head_norms(const LayerView& view, LatentLayer& to) {
    if (view.latent()) {
        const LatentAttentionView& attention = view.latent_attention();
        to.head_norms = head_norms(attention.head_q_norm, attention.head_k_norm, to.shape, to.pairs);
    } else {
        const AttentionView& attention = view.original_attention();
        to.head_norms = head_norms(attention.q_norm, attention.k_norm, to.shape, to.pairs);
    }
}

LatentLayer empty_layer(const Model& model, std::int64_t layer, const LatentShape& shape, const LayerPairs& pairs,
                        std::int64_t positions) {
    LatentLayer result;
    result.shape = shape;
    result.pairs = pairs;
    result.rule = ordered_attention(model.rules(layer));
    read_head_norms(model.layer(layer), result);
    result.rotary =
        std::make_shared<const RotaryTable>(ordered_rule(model.rules(layer).rotary, shape.head_dim), positions);
    return result;
}

LatentLayer empty_shared_key_layer(const Model& model, std::int64_t layer, const LatentShape& shape,
                                   const std::vector<double>& frequencies, std::int64_t positions) {
    LatentLayer result;
    result.shape = shape;
    result.rule = model.rules(layer).attention;
    RotaryRule rotary;
    rotary.frequencies = frequencies;
    result.rotary = std::make_shared<const RotaryTable>(rotary, positions);
    return result;
}

LatentLayer layer_of_original(const Model& model, std::int64_t layer, const LayerPairs& pairs, std::int64_t positions) {
    const AttentionView& view = model.layer(layer).original_attention();
    const HeadOrder order = head_order(model, layer);
    const LayerRows rows = layer_rows(model.config.attention_shape(), pairs, order.dims);
    LatentLayer result = empty_layer(model, layer, per_head_shape(model, pairs), pairs, positions);
    Matrix q = all_rows(*view.q.weight), q_bias = whole_bias(view.q.bias);
    order.take_gain(q);
    order.take_gain(q_bias);
    result.weights.q = gathered(q, rows.query);
    result.weights.k_rope = gathered(all_rows(*view.k.weight), rows.key_rope);
    result.weights.o = all_rows(*view.o.weight);
    if (q_bias.size() > 0) result.weights.q_bias = gathered(q_bias, rows.query);
    result.weights.k_rope_bias = gathered_bias(view.k.bias, rows.key_rope);
    result.weights.up_k_bias = gathered_bias(view.k.bias, rows.key_nope);
    result.weights.up_v_bias = whole_bias(view.v.bias);
    return result;
}

OriginalAttention read_original_attention(const Model& model, std::int64_t layer) {
    const AttentionView& view = model.layer(layer).original_attention();
    const RotaryRule& rotary = model.rules(layer).rotary;
    const AttentionShape shape = model.config.attention_shape();
    OriginalAttention result;
    result.heads = shape.num_heads;
    result.kv_heads = shape.num_kv_heads;
    result.head_dim = shape.head_dim;
    result.pairs = head_pairs(rotary, shape.head_dim);
    result.q = all_rows(*view.q.weight);
    result.k = all_rows(*view.k.weight);
    result.v = all_rows(*view.v.weight);
    result.o = all_rows(*view.o.weight);
    result.q_bias = whole_bias(view.q.bias);
    result.k_bias = whole_bias(view.k.bias);
    result.v_bias = whole_bias(view.v.bias);
    result.o_bias = whole_bias(view.o.bias);
    result.take_gain(rotary);
    return result;
}

LatentLayer layer_of_converted(const Model& model, std::int64_t layer, std::int64_t positions) {
    const LatentConfig& config = *model.config.latent;
    const LatentAttentionView& view = model.layer(layer).latent_attention();
    const LayerPairs& pairs = config.rope.pairs[static_cast<std::size_t>(layer)];
    LatentLayer result = empty_layer(model, layer, per_head_shape(model, pairs), pairs, positions);
    LatentWeights& weights = result.weights;
    weights.q = all_rows(*view.q.weight);
    weights.k_rope = all_rows(*view.k_rope.weight);
    weights.up_k = all_rows(*view.up_k.weight);
    weights.up_v = all_rows(*view.up_v.weight);
    weights.o = all_rows(*view.o.weight);
    result.weights.q_bias = whole_bias(view.q.bias);
    result.weights.k_rope_bias = whole_bias(view.k_rope.bias);
    result.weights.up_k_bias = whole_bias(view.up_k.bias);
    result.weights.up_v_bias = whole_bias(view.up_v.bias);
    const auto down = [&](const LinearView& of) {
        const std::int64_t hidden = model.config.hidden_size;
        return of.weight == nullptr ? Matrix(Matrix::Identity(hidden, hidden)) : all_rows(*of.weight);
    };
    weights.down = down(view.down_k);
    if (view.down_k.weight == view.down_v.weight) return result;
    const Matrix keys = std::move(weights.down), values = down(view.down_v);
    weights.down.resize(keys.rows() + values.rows(), keys.cols());
    weights.down << keys, values;
    weights.up_k.conservativeResize(Eigen::NoChange, weights.down.rows());
    weights.up_k.rightCols(values.rows()).setZero();
    const Matrix up_v = std::move(weights.up_v);
    weights.up_v.setZero(up_v.rows(), weights.down.rows());
    weights.up_v.rightCols(values.rows()) = up_v;
    return result;
}

void set_factors(const KvFactors& factors, LatentLayer& layer) {
    layer.weights.down = factors.down_k;
    layer.weights.up_k = factors.up_k;
    layer.weights.up_v = factors.up_v;
    layer.shape.kv_rank = factors.down_k.rows() / layer.shape.latents();
}

}  // namespace mha2mla
