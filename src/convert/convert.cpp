#include "mha2mla/convert.hpp"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "../linalg/parallel.hpp"
#include "layer_rows.hpp"
#include "layout.hpp"
#include "mha2mla/error.hpp"
#include "output_files.hpp"

namespace mha2mla {
namespace {

Matrix finite_matrix(const TensorView& tensor) {
    const auto values = to_finite_floats(tensor);
    return Eigen::Map<const Matrix>(values.data(), tensor.rows(), tensor.cols());
}

Matrix rows_of(const Matrix& matrix, const std::vector<std::int64_t>& rows) { return matrix(rows, Eigen::all); }

/// Writes rows of a weight or bias in a new order, byte for byte unless the dtype changes.
void write_rows(CheckpointWriter& writer, const std::string& name, const TensorView& tensor,
                const std::vector<std::int64_t>& rows, Dtype dtype) {
    const std::size_t row_bytes = tensor.rows() == 0 ? 0 : tensor.data.size() / static_cast<std::size_t>(tensor.rows());
    std::vector<std::byte> bytes(rows.size() * row_bytes);
    for (std::size_t i = 0; i < rows.size(); ++i) {
        std::memcpy(bytes.data() + i * row_bytes, tensor.data.data() + static_cast<std::size_t>(rows[i]) * row_bytes,
                    row_bytes);
    }
    if (dtype != tensor.dtype) {
        TensorView reordered = tensor;
        reordered.shape[0] = static_cast<std::int64_t>(rows.size());
        reordered.data = bytes;
        bytes = from_floats(to_finite_floats(reordered), dtype, tensor.name);
    }
    writer.write(name, bytes);
}

void write_matrix(CheckpointWriter& writer, const std::string& name, const Matrix& matrix, Dtype dtype) {
    if (!matrix.allFinite()) throw Error(ErrorCode::numeric, name + ": factorisation gave values that are not finite");
    writer.write(name, from_floats({matrix.data(), static_cast<std::size_t>(matrix.size())}, dtype, name));
}

/// Everything of one layer that changes. Returns the share of energy that the truncated SVD keeps.
double convert_layer(CheckpointWriter& writer, const Model& source, std::int64_t layer, const ConvertOptions& options,
                     const std::vector<std::vector<std::int64_t>>& pairs) {
    const ModelConfig& config = source.config;
    const AttentionView& view = *source.layers[static_cast<std::size_t>(layer)].attention;
    const LayerNames names(layer);
    const LayerRows rows = layer_rows(config, pairs);
    for (const TensorView* tensor : {view.q.weight, view.q.bias, view.k.bias, view.v.bias}) {
        if (tensor != nullptr) (void)to_finite_floats(*tensor);
    }
    const Matrix keys = finite_matrix(*view.k.weight);
    const Matrix values = finite_matrix(*view.v.weight);
    const auto widths = latent_widths(options.factorization, config.num_key_value_heads, config.head_dim,
                                      options.rope.rope_dim, options.kv_rank);
    const auto dtype = [&](const TensorView* tensor) { return output_dtype(tensor->dtype, options.dtype); };

    write_rows(writer, names.q + ".weight", *view.q.weight, rows.query, dtype(view.q.weight));
    write_rows(writer, names.k_rope + ".weight", *view.k.weight, rows.key_rope, dtype(view.k.weight));
    const KvFactors factors =
        factorize(options.factorization, rows_of(keys, rows.key_nope), values, widths, options.svd);
    if (options.factorization == Factorization::joint) {
        write_matrix(writer, names.down_kv + ".weight", factors.down_k, dtype(view.k.weight));
    } else {
        if (widths.key > 0) write_matrix(writer, names.down_k + ".weight", factors.down_k, dtype(view.k.weight));
        if (widths.value > 0) write_matrix(writer, names.down_v + ".weight", factors.down_v, dtype(view.v.weight));
    }
    write_matrix(writer, names.up_k + ".weight", factors.up_k, dtype(view.k.weight));
    write_matrix(writer, names.up_v + ".weight", factors.up_v, dtype(view.v.weight));

    // Biases follow their rows: they are added after the up projection.
    if (view.q.bias != nullptr) write_rows(writer, names.q + ".bias", *view.q.bias, rows.query, dtype(view.q.bias));
    if (view.k.bias != nullptr) {
        write_rows(writer, names.k_rope + ".bias", *view.k.bias, rows.key_rope, dtype(view.k.bias));
        write_rows(writer, names.up_k + ".bias", *view.k.bias, rows.key_nope, dtype(view.k.bias));
    }
    if (view.v.bias != nullptr) {
        std::vector<std::int64_t> in_order(static_cast<std::size_t>(view.v.bias->rows()));
        std::iota(in_order.begin(), in_order.end(), 0);
        write_rows(writer, names.up_v + ".bias", *view.v.bias, in_order, dtype(view.v.bias));
    }
    return factors.total_energy > 0 ? factors.retained_energy / factors.total_energy : 1.0;
}

void copy_tensor(CheckpointWriter& writer, const Model& source, const TensorView& tensor,
                 const ConvertOptions& options) {
    const Dtype dtype = output_dtype(tensor.dtype, options.dtype);
    if (dtype == tensor.dtype) {
        writer.copy(tensor.name, tensor, source.checkpoint.file_of(tensor));
    } else {
        writer.write(tensor.name, from_floats(to_finite_floats(tensor), dtype, tensor.name));
    }
}

}  // namespace

void check_destination(const Model& source, const std::filesystem::path& destination, bool overwrite) {
    std::error_code ignored;
    if (std::filesystem::equivalent(source.checkpoint.directory(), destination, ignored)) {
        throw Error(ErrorCode::usage, destination.string() + ": source and destination are the same directory");
    }
    check_output_directory(destination, overwrite);
}

ConvertReport convert(const Model& source, const std::filesystem::path& destination, const ConvertOptions& options,
                      const PairRanks* ranks, Observer& observer) {
    ConvertReport report;
    report.plan = plan_conversion(source.config, {options.rope.rope_dim, options.kv_rank, options.factorization, 16});
    report.selection = select_rope(source.config, options.rope, ranks);
    check_destination(source, destination, options.overwrite);
    const OutputLayout layout = lay_out_conversion(source, options);
    CheckpointWriter writer(destination, layout.tensors, {options.max_shard_bytes, options.overwrite});
    const std::int64_t layers = source.config.num_hidden_layers;
    const std::int64_t wave = options.layers_at_once;
    report.retained_energy.resize(static_cast<std::size_t>(layers));
    for (std::int64_t first = 0; first < layers; first += wave) {
        observer.step("convert", first, layers);
        parallel_for(std::min(wave, layers - first), [&](std::int64_t i, std::vector<float>&) {
            const auto layer = static_cast<std::size_t>(first + i);
            report.retained_energy[layer] =
                convert_layer(writer, source, first + i, options, report.selection.pairs[layer]);
        });
    }
    observer.step("convert", layers, layers);
    const auto copies = static_cast<std::int64_t>(layout.copies.size());
    for (std::int64_t i = 0; i < copies; ++i) {
        observer.step("copy", i, copies);
        copy_tensor(writer, source, *layout.copies[static_cast<std::size_t>(i)], options);
    }
    add_side_files(writer, source, options, report, ranks);
    observer.step("copy", copies, copies);
    writer.commit();
    report.output_bytes = writer.total_bytes();
    return report;
}

}  // namespace mha2mla
