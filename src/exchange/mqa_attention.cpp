// Architecture llama of llama.cpp, with one KV head. Its key is what layout `deepseek` caches, the rotated rows and
// then the latent; a head's query is its rotated rows and K_hᵀ q_nope, K_h the up projection of its keys; its value is
// the latent; W_o,h V_h takes the place of the output projection. Keys and values must be equally wide there, so values
// end in zeros, and all dimensions rotate, so those of the latent do by the factor 1 / 1e30.
#include <algorithm>
#include <cmath>

#include "../linalg/gemm.hpp"
#include "export_tensor.hpp"
#include "latent_norm.hpp"
#include "mha2mla/error.hpp"
#include "mha2mla/matrix.hpp"

namespace mha2mla {
namespace {

Matrix matrix_of(const TensorView& tensor) {
    Matrix to(tensor.rows(), tensor.cols());
    to_finite_float(tensor, 0, {to.data(), static_cast<std::size_t>(to.size())});
    return to;
}

Matrix product(const Matrix& a, const Matrix& b) {
    Matrix to(a.rows(), b.cols());
    multiply_ab(a.rows(), b.cols(), a.cols(), 1, {a.data(), a.cols()}, {b.data(), b.cols()}, 0, {to.data(), to.cols()});
    return to;
}

/// Weights and, in one more column, biases.
Matrix with_bias(const LinearView& linear) {
    const Matrix weight = matrix_of(*linear.weight);
    Matrix to = Matrix::Zero(weight.rows(), weight.cols() + 1);
    to.leftCols(weight.cols()) = weight;
    if (linear.bias != nullptr) to.rightCols(1) = matrix_of(*linear.bias);
    return to;
}

/// What the norm of a tiny latent multiplies each component by. [rank]
Vector constants_of(const NormView& norm) {
    if (!has_tiny_latent(norm)) {
        throw Error(ErrorCode::unsupported,
                    norm.weight->file + ": '" + norm.weight->name +
                        "' normalises a latent, which llama.cpp's architecture llama has no place for; only what this "
                        "program converted goes into it",
                    Remedy::form_mla);
    }
    return matrix_of(*norm.weight).col(0) / static_cast<float>(std::sqrt(norm.rule.eps));
}

/// One layer, whose tensors are computed when they are written.
struct AbsorbedLayer {
    const Model& model;
    const LatentAttentionView& view;
    LatentShape shape;
    LatentRows rows;
    float scale;  // of queries: llama.cpp divides scores by √width() instead of what the checkpoint does

    [[nodiscard]] std::int64_t width() const { return shape.kv_rank + shape.rope_dim; }

    /// Queries as a map of the hidden state and, in the last column, of 1. [num_heads * (nope + rope), hidden + 1]
    [[nodiscard]] Matrix queries() const {
        Matrix to = with_bias(view.q);
        if (view.q_down.weight == nullptr) return to;
        const Matrix down = constants_of(view.q_norm).asDiagonal() * with_bias(view.q_down);
        Matrix through = product(to.leftCols(to.cols() - 1), down);
        through.rightCols(1) += to.rightCols(1);
        return through;
    }

    /// Rows of a head's keys, or of its values, in the up projection. [dim, rank]
    [[nodiscard]] Matrix up(const LinearView& linear, const HeadRows& at, std::int64_t head, std::int64_t dim) const {
        Matrix to(dim, shape.kv_rank);
        const std::int64_t first = (at.first + head * at.stride) * shape.kv_rank;
        to_finite_float(*linear.weight, static_cast<std::uint64_t>(first),
                        {to.data(), static_cast<std::size_t>(to.size())});
        return to;
    }

    /// [num_heads * width(), hidden + 1]
    [[nodiscard]] Matrix absorbed_queries() const {
        const Matrix q = queries() * scale;
        const std::int64_t rope = shape.rope_dim, nope = shape.nope_dim();
        Matrix to(shape.num_heads * width(), q.cols());
        for (std::int64_t h = 0; h < shape.num_heads; ++h) {
            const Matrix keys = up(view.up_k, rows.up_key, h, nope).transpose();
            to.middleRows(h * width(), rope) = q.middleRows(rows.query_rope.first + h * rows.query_rope.stride, rope);
            to.middleRows(h * width() + rope, shape.kv_rank) =
                product(keys, q.middleRows(rows.query_nope.first + h * rows.query_nope.stride, nope));
        }
        return to;
    }

    /// The latent as it is cached. [rank, hidden + 1]
    [[nodiscard]] Matrix latent() const { return constants_of(view.latent_norm).asDiagonal() * with_bias(view.down_k); }
    /// [width(), hidden + 1]
    [[nodiscard]] Matrix keys() const {
        Matrix to(width(), shape.hidden + 1);
        to.topRows(shape.rope_dim) = with_bias(view.k_rope);
        to.bottomRows(shape.kv_rank) = latent();
        return to;
    }
    /// [width(), hidden + 1]
    [[nodiscard]] Matrix values() const {
        Matrix to = Matrix::Zero(width(), shape.hidden + 1);
        to.topRows(shape.kv_rank) = latent();
        return to;
    }
    /// [hidden, num_heads * width()]
    [[nodiscard]] Matrix output() const {
        const Matrix o = matrix_of(*view.o.weight);
        Matrix to = Matrix::Zero(shape.hidden, shape.num_heads * width());
        for (std::int64_t h = 0; h < shape.num_heads; ++h) {
            to.middleCols(h * width(), shape.kv_rank) = product(o.middleCols(h * shape.head_dim, shape.head_dim),
                                                                up(view.up_v, rows.up_value, h, shape.head_dim));
        }
        return to;
    }
};

using Compute = Matrix (AbsorbedLayer::*)() const;

/// A weight that is computed as a whole.
ExportTensor computed(std::string name, const AbsorbedLayer& layer, Compute compute, std::int64_t rows,
                      std::int64_t columns, std::vector<const TensorView*> sources) {
    ExportTensor to{std::move(name), {rows, columns}, Precision::matrix, std::move(sources), rows, nullptr};
    to.read = [layer, compute, columns](std::int64_t, std::int64_t count, std::span<float> values) {
        Eigen::Map<Matrix>(values.data(), count, columns) = (layer.*compute)().leftCols(columns);
    };
    return to;
}

/// The last column of the same.
ExportTensor computed_bias(std::string name, const AbsorbedLayer& layer, Compute compute, std::int64_t rows) {
    ExportTensor to{std::move(name), {rows}, Precision::f32, {}, 1, nullptr};
    to.read = [layer, compute](std::int64_t, std::int64_t, std::span<float> values) {
        const Matrix whole = (layer.*compute)();
        Eigen::Map<Vector>(values.data(), whole.rows()) = whole.rightCols(1);
    };
    return to;
}

/// By what llama.cpp divides the angles of θ^(−2k/width), θ = 10000. [width / 2]
std::vector<float> rope_factors(const RotaryRule& rotary, std::int64_t width, double theta) {
    constexpr float kDoesNotRotate = 1e30F;
    std::vector<float> factors(static_cast<std::size_t>(width / 2), kDoesNotRotate);
    for (std::size_t k = 0; k < rotary.frequencies.size(); ++k) {
        const double geometric = std::pow(theta, -2 * static_cast<double>(k) / static_cast<double>(width));
        factors[k] = static_cast<float>(geometric / rotary.frequencies[k]);
    }
    return factors;
}

void check_rotary(const Model& model, std::int64_t width) {
    const RotaryRule& rotary = model.rules(0).rotary;
    const std::string config = model.checkpoint.directory().string() + "/config.json";
    if (rotary.gain != 1 || rotary.trained_length != 0 || !rotary.interleaved) {
        throw Error(ErrorCode::unsupported,
                    config +
                        ": the frequencies of rope_parameters change with the length of a text, or its "
                        "pairs are not side by side, which llama.cpp's architecture llama has no place for");
    }
    if (width % 2 != 0) {
        throw Error(ErrorCode::unsupported, config + ": kv_lora_rank must be even for the form mqa, not " +
                                                std::to_string(model.config.latent->kv_rank));
    }
}

}  // namespace

void add_mqa_attention(const Model& model, ExportContent& content) {
    constexpr double kTheta = 10000;
    const LatentShape shape = model.config.latent_shape();
    const std::int64_t width = shape.kv_rank + shape.rope_dim, query_rows = shape.num_heads * width;
    check_rotary(model, width);
    for (const char* key : {"attention.key_length", "attention.value_length", "rope.dimension_count"}) {
        content.metadata.add_count("llama." + std::string(key), width);
    }
    content.metadata.add("llama.rope.freq_base", static_cast<float>(kTheta));
    content.cached_numbers = 2 * model.config.num_hidden_layers * width;

    const auto add = [&](ExportTensor tensor) { content.tensors.push_back(std::move(tensor)); };
    add(known_values("rope_freqs.weight", {width / 2}, rope_factors(model.rules(0).rotary, width, kTheta)));
    for (std::int64_t i = 0; i < model.config.num_hidden_layers; ++i) {
        const LatentAttentionView& view = model.layer(i).latent_attention();
        const AbsorbedLayer layer{model, view, shape, shape.layout->rows(shape),
                                  model.rules(i).attention.scale * std::sqrt(static_cast<float>(width))};
        const auto weight = [&](const char* name, Compute compute, std::int64_t rows, std::int64_t columns,
                                std::vector<const TensorView*> sources) {
            add(computed(block_name(i, name), layer, compute, rows, columns, std::move(sources)));
        };
        (void)constants_of(view.latent_norm);  // refuses before anything is written
        weight("attn_q.weight", &AbsorbedLayer::absorbed_queries, query_rows, shape.hidden,
               {view.q.weight, view.up_k.weight});
        weight("attn_k.weight", &AbsorbedLayer::keys, width, shape.hidden, {view.down_k.weight, view.k_rope.weight});
        weight("attn_v.weight", &AbsorbedLayer::values, width, shape.hidden, {view.down_k.weight});
        weight("attn_output.weight", &AbsorbedLayer::output, shape.hidden, query_rows,
               {view.o.weight, view.up_v.weight});
        if (view.q.bias != nullptr || view.q_down.bias != nullptr) {
            add(computed_bias(block_name(i, "attn_q.bias"), layer, &AbsorbedLayer::absorbed_queries, query_rows));
        }
        if (view.down_k.bias != nullptr) {
            add(computed_bias(block_name(i, "attn_k.bias"), layer, &AbsorbedLayer::keys, width));
            add(computed_bias(block_name(i, "attn_v.bias"), layer, &AbsorbedLayer::values, width));
        }
        if (view.o.bias != nullptr) add(same_rows(block_name(i, "attn_output.bias"), *view.o.bias, Precision::f32));
    }
}

}  // namespace mha2mla
