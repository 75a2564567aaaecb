#include "convert_layer.hpp"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "../latent/attention_target.hpp"
#include "../latent/guided_layer.hpp"
#include "../latent/layer_tensors.hpp"
#include "../model/head_order.hpp"
#include "layout.hpp"
#include "mha2mla/error.hpp"

namespace mha2mla {
namespace {

std::vector<std::int64_t> in_order(std::int64_t count) {
    std::vector<std::int64_t> rows(static_cast<std::size_t>(count));
    std::iota(rows.begin(), rows.end(), 0);
    return rows;
}

/// Where the rows of keys that are repeated for `times` query heads lie in the original's.
void to_original_rows(std::vector<std::int64_t>& rows, std::int64_t head_dim, std::int64_t times) {
    for (std::int64_t& row : rows) row = row / (head_dim * times) * head_dim + row % head_dim;
}

/// Writes rows of a weight or bias in a new order, byte for byte unless the dtype changes.
void write_rows(CheckpointWriter& writer, const std::string& name, const TensorView& tensor,
                const std::vector<std::int64_t>& rows, Dtype dtype) {
    const std::int64_t columns = tensor.cols();
    const std::size_t row_bytes = byte_count(dtype, {columns});
    std::vector<std::byte> bytes(rows.size() * row_bytes);
    std::vector<float> values(dtype == tensor.dtype ? 0 : static_cast<std::size_t>(columns));
    for (std::size_t i = 0; i < rows.size(); ++i) {
        if (dtype == tensor.dtype) {
            std::memcpy(bytes.data() + i * row_bytes,
                        tensor.data.data() + static_cast<std::size_t>(rows[i]) * row_bytes, row_bytes);
            continue;
        }
        to_float(tensor, static_cast<std::uint64_t>(rows[i] * columns), values);
        const auto converted = from_floats(values, dtype, tensor.name);
        std::copy(converted.begin(), converted.end(), bytes.begin() + static_cast<std::ptrdiff_t>(i * row_bytes));
    }
    writer.write(name, bytes);
}

void write_matrix(CheckpointWriter& writer, const std::string& name, const Matrix& matrix, Dtype dtype) {
    if (!matrix.allFinite()) throw Error(ErrorCode::numeric, name + ": the conversion gave values that are not finite");
    writer.write(name, from_floats({matrix.data(), static_cast<std::size_t>(matrix.size())}, dtype, name));
}

/// Rows of queries, which take the gain of the rotation.
void write_queries(CheckpointWriter& writer, const std::string& name, const TensorView& tensor, const HeadOrder& order,
                   const std::vector<std::int64_t>& rows, Dtype dtype) {
    if (order.row_gain == 1) return write_rows(writer, name, tensor, rows, dtype);
    Matrix queries(tensor.rows(), tensor.cols());
    to_float(tensor, 0, {queries.data(), static_cast<std::size_t>(queries.size())});
    order.take_gain(queries);
    Matrix moved(std::ssize(rows), queries.cols());
    for (std::size_t i = 0; i < rows.size(); ++i) moved.row(static_cast<Eigen::Index>(i)) = queries.row(rows[i]);
    write_matrix(writer, name, moved, dtype);
}

/// Biases follow their rows: they are added after the up projection.
/// @param new_q in place of the query's, where that changed.
void write_biases(CheckpointWriter& writer, const AttentionView& view, const LayerNames& names, const HeadOrder& order,
                  const LayerRows& rows, const std::optional<Dtype>& asked, const Vector* new_q = nullptr) {
    const auto dtype = [&](const TensorView* tensor) { return output_dtype(tensor->dtype, asked); };
    if (view.q.bias != nullptr && new_q != nullptr) {
        const std::string name = names.of(LatentRole::query) + ".bias";
        writer.write(name,
                     from_floats({new_q->data(), static_cast<std::size_t>(new_q->size())}, dtype(view.q.bias), name));
    } else if (view.q.bias != nullptr) {
        write_queries(writer, names.of(LatentRole::query) + ".bias", *view.q.bias, order, rows.query,
                      dtype(view.q.bias));
    }
    if (view.k.bias != nullptr) {
        write_rows(writer, names.of(LatentRole::key_rope) + ".bias", *view.k.bias, rows.key_rope, dtype(view.k.bias));
        write_rows(writer, names.of(LatentRole::up_key) + ".bias", *view.k.bias, rows.key_nope, dtype(view.k.bias));
    }
    if (view.v.bias != nullptr) {
        write_rows(writer, names.of(LatentRole::up_value) + ".bias", *view.v.bias, in_order(view.v.bias->rows()),
                   dtype(view.v.bias));
    }
}

}  // namespace

LayerResult convert_layer(CheckpointWriter& writer, const Model& source, std::int64_t layer, const OutputForm& form,
                          const StagedPlan& stages, const LayerInputs* inputs, const LayerPairs& pairs) {
    const AttentionView& view = source.layer(layer).original_attention();
    const LatentShape& shape = form.shape;
    const LayerNames names(layer, shape);
    const HeadOrder order = head_order(source, layer);
    LayerRows rows = layer_rows(shape, pairs, order.dims);
    for (auto* keys : {&rows.key_rope, &rows.key_nope})
        to_original_rows(*keys, shape.head_dim, shape.heads_per_value());
    for (const TensorView* tensor : {view.q.weight, view.q.bias, view.k.weight, view.k.bias, view.v.bias}) {
        if (tensor != nullptr) check_finite(*tensor);
    }
    const LatentWidths widths = shape.widths();
    const auto dtype = [&](const TensorView* tensor) { return output_dtype(tensor->dtype, form.dtype); };

    write_rows(writer, names.of(LatentRole::key_rope) + ".weight", *view.k.weight, rows.key_rope, dtype(view.k.weight));
    LayerResult result;
    const Matrix kv = gather_kv(*view.k.weight, rows.key_nope, *view.v.weight);
    const auto nope_rows = static_cast<std::int64_t>(rows.key_nope.size());
    GuidedLayer guided;
    if (stages.guided()) {
        guided =
            guide_layer(source, layer, pairs, kv,
                        {stages.factorization, stages.kv_rank, stages.svd, stages.balance, stages.nope_phase}, inputs);
        result.balance = guided.balance;
    } else {
        guided.factors = factorize(stages.factorization, kv, nope_rows, widths, stages.svd);
    }
    const KvFactors& factors = guided.factors;
    const bool turned = stages.nope_phase == NopePhase::fitted;
    if (turned) {
        write_matrix(writer, names.of(LatentRole::query) + ".weight", guided.q, dtype(view.q.weight));
    } else {
        write_queries(writer, names.of(LatentRole::query) + ".weight", *view.q.weight, order, rows.query,
                      dtype(view.q.weight));
    }
    if (shares_latent(stages.factorization)) {
        write_matrix(writer, names.of(LatentRole::down) + ".weight", factors.down_k, dtype(view.k.weight));
    } else {
        if (widths.key > 0)
            write_matrix(writer, names.of(LatentRole::down_key) + ".weight", factors.down_k, dtype(view.k.weight));
        if (widths.value > 0)
            write_matrix(writer, names.of(LatentRole::down_value) + ".weight", factors.down_v, dtype(view.v.weight));
    }
    write_matrix(writer, names.of(LatentRole::up_key) + ".weight", factors.up_k, dtype(view.k.weight));
    write_matrix(writer, names.of(LatentRole::up_value) + ".weight", factors.up_v, dtype(view.v.weight));

    write_biases(writer, view, names, order, rows, form.dtype, turned ? &guided.q_bias : nullptr);
    if (factors.total_energy > 0) result.retained_energy = factors.retained_energy / factors.total_energy;
    return result;
}

void write_aligned_layer(CheckpointWriter& writer, const Model& source, std::int64_t layer, const OutputForm& form,
                         const LatentWeights& weights) {
    const AttentionView& view = source.layer(layer).original_attention();
    const bool own_form = !form.shape.layout->model_type.empty();
    const LayerContent content{weights,
                               form.shape,
                               source.rules(layer).attention.scale,
                               own_form ? output_bias(source, layer) : Vector(),
                               form.biased,
                               form.latent_norm};
    for (const LatentTensor& tensor : form.shape.layout->tensors(form.shape)) {
        const LinearView& from = projection(view, tensor.from);
        const std::string name = layer_prefix(layer) + std::string(tensor.name);
        auto [weight, bias] = content_of(tensor, content);
        if (tensor.role == LatentRole::output) weight *= form.residual_scale, bias *= form.residual_scale;
        write_matrix(writer, name + ".weight", weight, output_dtype(from.weight->dtype, form.dtype));
        if (!tensor.biased || bias.size() == 0 || (own_form && !form.biased)) continue;
        const TensorView* like = own_form || from.bias == nullptr ? from.weight : from.bias;
        write_matrix(writer, name + ".bias", bias, output_dtype(like->dtype, form.dtype));
    }
}

void copy_tensor(CheckpointWriter& writer, const Model& source, const CopiedTensor& copy, const OutputForm& form) {
    const auto& [view, name, factor] = copy;
    const TensorView& tensor = *view;
    const Dtype dtype = output_dtype(tensor.dtype, form.dtype);
    const bool reordered = std::any_of(source.layers.begin(), source.layers.end(), [&](const LayerView& layer) {
        const AttentionView& view = layer.original_attention();
        return view.q_norm.weight == &tensor || view.k_norm.weight == &tensor;
    });
    if (reordered && !form.norm_order.empty()) return write_rows(writer, name, tensor, form.norm_order, dtype);
    if (dtype == tensor.dtype && factor == 1) return writer.copy(name, tensor, source.checkpoint.file_of(tensor));
    constexpr std::uint64_t kStep = 1U << 20U;
    const std::uint64_t count = element_count(tensor.shape);
    std::vector<float> values(std::min(kStep, count));
    for (std::uint64_t first = 0; first < count; first += kStep) {
        const auto part = std::span(values).first(std::min(kStep, count - first));
        to_finite_float(tensor, first, part);
        for (float& value : part) value *= factor;
        writer.write_part(name, first * dtype_bits(dtype) / 8, from_floats(part, dtype, tensor.name));
    }
}

}  // namespace mha2mla
