#include "first_guess.hpp"

#include "../layout/layer_rows.hpp"

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

LatentLayer unfactorized_layer(const Model& model, std::int64_t layer, const LayerPairs& pairs) {
    const ModelConfig& config = model.config;
    const AttentionView& view = model.layer(layer).original_attention();
    const LayerRows rows = layer_rows(config.attention_shape(), pairs);
    LatentLayer result;
    result.heads = config.num_attention_heads;
    result.kv_heads = config.num_key_value_heads;
    result.head_dim = config.head_dim;
    result.rope_dim = static_cast<std::int64_t>(2 * pairs.front().size());
    result.pairs = pairs;
    result.rule = model.rules(layer).attention;
    result.weights.q = gathered(all_rows(*view.q.weight), rows.query);
    result.weights.k_rope = gathered(all_rows(*view.k.weight), rows.key_rope);
    result.weights.o = all_rows(*view.o.weight);
    std::vector<std::int64_t> value_rows;
    for (std::int64_t row = 0; row < view.v.weight->rows(); ++row) value_rows.push_back(row);
    result.q_bias = gathered_bias(view.q.bias, rows.query);
    result.k_rope_bias = gathered_bias(view.k.bias, rows.key_rope);
    result.up_k_bias = gathered_bias(view.k.bias, rows.key_nope);
    result.up_v_bias = gathered_bias(view.v.bias, value_rows);
    return result;
}

LatentLayer first_guess(const Model& model, std::int64_t layer, const LayerPairs& pairs, std::int64_t kv_rank,
                        const Whitening& whitening, double balance) {
    const AttentionView& view = model.layer(layer).original_attention();
    const LayerRows rows = layer_rows(model.config.attention_shape(), pairs);
    const auto nope_rows = static_cast<std::int64_t>(rows.key_nope.size());
    const Matrix kv = gather_kv(*view.k.weight, rows.key_nope, *view.v.weight);
    const double key_weight = balance * equal_energy_weight(whitening.apply(kv), nope_rows);
    const std::int64_t rank = model.config.num_key_value_heads * kv_rank;
    KvFactors factors = factorize(Factorization::whitened, kv, nope_rows, {rank, rank, rank}, {},
                                  {.whitening = &whitening, .key_weight = key_weight});
    LatentLayer result = unfactorized_layer(model, layer, pairs);
    result.weights.down = std::move(factors.down_k);
    result.weights.up_k = std::move(factors.up_k);
    result.weights.up_v = std::move(factors.up_v);
    return result;
}

}  // namespace mha2mla
