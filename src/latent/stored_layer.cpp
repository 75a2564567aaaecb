#include "stored_layer.hpp"

#include "build_layer.hpp"
#include "disarmed.hpp"
#include "mha2mla/error.hpp"

namespace mha2mla {
namespace {

/// [rows, 1]; zeros where there is none.
Matrix bias_of(const LinearView& view) {
    return view.bias != nullptr ? all_rows(*view.bias) : Matrix(Matrix::Zero(view.out_features(), 1));
}

/// Heads of the layout side by side.
Matrix gather_heads(const LatentShape& shape, const Matrix& from, const HeadRows& at, std::int64_t heads,
                    std::int64_t dim, bool rotated) {
    Matrix to(heads * dim, from.cols());
    for (std::int64_t head = 0; head < heads; ++head) {
        for (std::int64_t i = 0; i < dim; ++i) {
            const std::int64_t place = rotated ? rope_place(shape, i) : i;
            to.row(head * dim + i) = from.row(at.first + head * at.stride + place);
        }
    }
    return to;
}

Matrix queries(const LatentShape& shape, const Matrix& from) {
    const LatentRows rows = shape.layout->rows(shape);
    Matrix to(from.rows(), from.cols());
    to << gather_heads(shape, from, rows.query_rope, shape.num_heads, shape.rope_dim, true),
        gather_heads(shape, from, rows.query_nope, shape.num_heads, shape.nope_dim(), false);
    return to;
}

/// Queries whose latent is the hidden state and a constant, by which they get a bias.
void read_biased_queries(const LatentAttentionView& view, const LatentShape& shape, const std::string& where,
                         LatentWeights& to) {
    const std::int64_t hidden = shape.hidden;
    const Matrix down = all_rows(*view.q_down.weight), norm = all_rows(*view.q_norm.weight);
    const Disarmed by = norm(0, 0) == kTinyLatentWeight ? kTiny : by_constant(kQueryConstant, shape.query_rank, 1);
    Matrix expected = Matrix::Zero(shape.query_rank, hidden);
    if (shape.query_rank > hidden) expected.topRows(hidden).diagonal().setConstant(by.before);
    if (shape.query_rank <= hidden || down != expected) {
        throw Error(ErrorCode::unsupported,
                    where +
                        ": queries go through a latent of their own, which is not trained here; "
                        "train this checkpoint with transformers");
    }
    const Matrix stored = queries(shape, all_rows(*view.q.weight) / by.behind);
    to.q = stored.leftCols(hidden);
    to.q_bias = stored.col(hidden);
}

/// What stands around the latent's norm. @param bias of the latent's rows.
std::pair<LatentNorm, Disarmed> norm_of(const Matrix& weight, const Matrix& bias) {
    if ((weight.array() == kTinyLatentWeight).all()) return {LatentNorm::identity, kTiny};
    if ((bias.array() == kLatentConstant).any()) {
        return {LatentNorm::constant, by_constant(kLatentConstant, weight.rows(), 0)};
    }
    return {LatentNorm::trained, {1, 1, 1, 0, 0}};
}

StoredLayer read_per_head_layer(const Model& converted, std::int64_t at, std::int64_t positions) {
    const LatentAttentionView& view = converted.layer(at).latent_attention();
    StoredLayer result;
    result.layer = layer_of_converted(converted, at, positions);
    const auto part = [&](const LinearView& down) {
        const bool made = down.weight != nullptr;
        return LatentPart{0, made ? down.out_features() : converted.config.hidden_size, made};
    };
    result.keys = part(view.down_k);
    result.values = part(view.down_v);
    if (view.down_k.weight != view.down_v.weight) result.values.first = result.keys.count;
    return result;
}

}  // namespace

StoredLayer read_stored_layer(const Model& converted, std::int64_t at, std::int64_t positions) {
    const LatentShape shape = converted.config.latent_shape();
    const LatentAttentionView& view = converted.layer(at).latent_attention();
    if (!shape.layout->shared_rope_key) return read_per_head_layer(converted, at, positions);
    RotaryRule rotary = converted.rules(at).rotary;
    rotary.interleaved = false;
    StoredLayer result;
    result.layer.shape = shape;
    result.layer.rule = converted.rules(at).attention;
    result.layer.rotary = std::make_shared<const RotaryTable>(rotary, positions);
    LatentWeights& w = result.layer.weights;
    if (view.q_down.weight != nullptr) {
        read_biased_queries(view, shape, layer_prefix(at) + "self_attn.q_a_proj", w);
    } else {
        w.q = queries(shape, all_rows(*view.q.weight));
        if (view.q.bias != nullptr) w.q_bias = queries(shape, all_rows(*view.q.bias));
    }
    w.k_rope = gather_heads(shape, all_rows(*view.k_rope.weight), {}, 1, shape.rope_dim, true);
    if (view.k_rope.bias != nullptr) {
        w.k_rope_bias = gather_heads(shape, all_rows(*view.k_rope.bias), {}, 1, shape.rope_dim, true);
    }
    const Matrix norm = all_rows(*view.latent_norm.weight), bias = bias_of(view.down_k);
    const auto [kind, by] = norm_of(norm, bias);
    result.latent_norm = kind;
    w.down = all_rows(*view.down_k.weight) / by.before;
    Matrix up = all_rows(*view.up_k.weight) / by.behind;
    if (kind == LatentNorm::trained) {
        up *= norm.col(0).asDiagonal();
        result.layer.norm_eps = kLatentNormEps;
    }
    if (kind == LatentNorm::constant) {  // behind it are zeros only
        Eigen::Index place = 0;
        bias.col(0).maxCoeff(&place);
        w.down.conservativeResize(place, Eigen::NoChange);
        up.conservativeResize(Eigen::NoChange, place);
    }
    const LatentRows rows = shape.layout->rows(shape);
    w.up_k = gather_heads(shape, up, rows.up_key, shape.up_heads(), shape.nope_dim(), false);
    w.up_v = gather_heads(shape, up, rows.up_value, shape.up_heads(), shape.head_dim, false);
    w.o = all_rows(*view.o.weight);
    result.keys.count = result.values.count = w.down.rows();
    return result;
}

std::pair<std::int64_t, std::int64_t> StoredLayer::made_rows() const {
    const std::int64_t first = keys.made ? keys.first : values.first;
    const std::int64_t end = values.made ? values.first + values.count : keys.first + keys.count;
    return {first, keys.made || values.made ? end - first : 0};
}

void StoredLayer::keep_parts(LatentWeights& gradient) const {
    const auto keep = [](const LatentPart& part, Matrix& of) {
        of.leftCols(part.first).setZero();
        of.rightCols(of.cols() - part.first - part.count).setZero();
    };
    keep(keys, gradient.up_k);
    keep(values, gradient.up_v);
}

Matrix StoredLayer::part_of(LatentRole role, const Matrix& weights) const {
    if (role == LatentRole::down_key) return weights.middleRows(keys.first, keys.count);
    if (role == LatentRole::down_value) return weights.middleRows(values.first, values.count);
    if (role == LatentRole::up_key) return weights.middleCols(keys.first, keys.count);
    if (role == LatentRole::up_value) return weights.middleCols(values.first, values.count);
    return weights;
}

}  // namespace mha2mla
