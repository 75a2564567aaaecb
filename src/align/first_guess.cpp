#include "first_guess.hpp"

#include <algorithm>
#include <cmath>

#include "../convert/layer_rows.hpp"
#include "../factorize/whitened.hpp"

namespace mha2mla {
namespace {

Matrix all_rows(const TensorView& tensor) {
    Matrix result(tensor.rows(), tensor.cols());
    to_finite_float(tensor, 0, {result.data(), static_cast<std::size_t>(result.size())});
    return result;
}

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

/// Mean square of one output of these rows on the text.
double mean_square(const Matrix& rows, const MatrixD& moment) {
    const MatrixD w = rows.cast<double>();
    return (w * moment).cwiseProduct(w).sum() / static_cast<double>(std::max<Eigen::Index>(1, w.rows()));
}

}  // namespace

MatrixD second_moment(const Matrix& rows) {
    constexpr Eigen::Index kBlock = 4096;
    MatrixD sum = MatrixD::Zero(rows.cols(), rows.cols());
    for (Eigen::Index first = 0; first < rows.rows(); first += kBlock) {
        const MatrixD block = rows.middleRows(first, std::min(kBlock, rows.rows() - first)).cast<double>();
        sum.noalias() += block.transpose() * block;
    }
    return sum / static_cast<double>(rows.rows());
}

LatentLayer first_guess(const Model& model, std::int64_t layer, const std::vector<std::vector<std::int64_t>>& pairs,
                        std::int64_t kv_rank, const MatrixD& moment, double balance) {
    const ModelConfig& config = model.config;
    const AttentionView& view = *model.layers[static_cast<std::size_t>(layer)].attention;
    const LayerRows rows = layer_rows(config, pairs);
    const Matrix k = all_rows(*view.k.weight), v = all_rows(*view.v.weight);
    const Matrix k_nope = gathered(k, rows.key_nope);
    Matrix kv(k_nope.rows() + v.rows(), v.cols());
    kv << k_nope, v;
    const double keys = mean_square(k_nope, moment);
    const double key_weight = keys > 0 ? balance * std::sqrt(mean_square(v, moment) / keys) : 1.0;
    const std::int64_t rank = config.num_key_value_heads * kv_rank;
    KvFactors factors =
        factorize_whitened(kv, k_nope.rows(), {rank, rank, rank}, {}, moment, key_weight > 0 ? key_weight : 1.0);
    LatentLayer result;
    result.heads = config.num_attention_heads;
    result.kv_heads = config.num_key_value_heads;
    result.head_dim = config.head_dim;
    result.rope_dim = static_cast<std::int64_t>(2 * pairs.front().size());
    result.pairs = pairs;
    result.weights = {gathered(all_rows(*view.q.weight), rows.query),
                      gathered(k, rows.key_rope),
                      std::move(factors.down_k),
                      std::move(factors.up_k),
                      std::move(factors.up_v),
                      all_rows(*view.o.weight)};
    std::vector<std::int64_t> value_rows;
    for (std::int64_t row = 0; row < v.rows(); ++row) value_rows.push_back(row);
    result.q_bias = gathered_bias(view.q.bias, rows.query);
    result.k_rope_bias = gathered_bias(view.k.bias, rows.key_rope);
    result.up_k_bias = gathered_bias(view.k.bias, rows.key_nope);
    result.up_v_bias = gathered_bias(view.v.bias, value_rows);
    return result;
}

}  // namespace mha2mla
