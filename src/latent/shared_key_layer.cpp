#include "shared_key_layer.hpp"

#include <Eigen/Cholesky>
#include <algorithm>
#include <cmath>

#include "../linalg/blas.hpp"
#include "../linalg/tiled.hpp"
#include "../support/parallel.hpp"
#include "mha2mla/error.hpp"

namespace mha2mla {
namespace {

/// L with L·Lᵀ = moment + ridge. The ridge is Whitening::kRidge of the mean diagonal, and ten times more until a factor
/// exists: where queries or keys are degenerate, rounding may leave a moment far from symmetric and positive.
MatrixD root_of_moment(const MatrixD& moment) {
    constexpr double kLeastRidge = 1e-30;
    if (moment.size() == 0) return moment;
    const MatrixD symmetric = (moment + moment.transpose()) / 2;
    const double mean = symmetric.diagonal().mean();
    for (double share = Whitening::kRidge; symmetric.allFinite() && share <= 10; share *= 10) {
        MatrixD ridged = symmetric;
        ridged.diagonal().array() += std::max(share * mean, kLeastRidge);
        const Eigen::LLT<MatrixD> cholesky(ridged);
        if (cholesky.info() == Eigen::Success) return cholesky.matrixL();
    }
    throw Error(ErrorCode::numeric,
                "queries or output projections are not finite; does the checkpoint hold NaN or infinite weights?");
}

/// W_oᵀW_o, summed over the query heads of a KV head.
MatrixD output_gram(const OriginalAttention& layer, std::int64_t kv_head) {
    MatrixD gram = MatrixD::Zero(layer.head_dim, layer.head_dim);
    for (std::int64_t head = kv_head * layer.group_size(); head < (kv_head + 1) * layer.group_size(); ++head) {
        const MatrixD o = layer.o.middleCols(head * layer.head_dim, layer.head_dim).cast<double>();
        gram.noalias() += o.transpose() * o;
    }
    return gram;
}

/// E qqᵀ of the queries that unrotated components meet, summed over heads. [nope_rows, nope_rows]
MatrixD met_queries(const std::vector<MatrixD>& maps, const QueryKeyMoments& moments) {
    constexpr std::int64_t kStrip = 64;
    const std::int64_t rows = maps.front().rows();
    MatrixD sum = MatrixD::Zero(rows, rows);
    parallel_for((rows + kStrip - 1) / kStrip, [&](std::int64_t strip, std::vector<float>&) {
        const std::int64_t first = strip * kStrip, count = std::min(kStrip, rows - first);
        for (std::size_t head = 0; head < maps.size(); ++head) {
            const MatrixD left = maps[head].middleRows(first, count) * moments.query[head];
            gemm(CblasNoTrans, CblasTrans, count, rows, left.cols(), 1.0, left.data(), left.cols(), maps[head].data(),
                 left.cols(), 1.0, sum.data() + first * rows, rows);
        }
    });
    return sum;
}

/// Solves Lᵀ·X = rows.
Matrix without_weight(const MatrixD& factor, const Eigen::Ref<const Matrix>& rows) {
    return factor.transpose().triangularView<Eigen::Upper>().solve(rows.cast<double>().eval()).cast<float>();
}

/// By how much keys are multiplied, so that they have `balance` times the energy's root of the values.
double key_weight(const Matrix& keys, const Matrix& values, double balance) {
    const double key_energy = squared_norm(keys), value_energy = squared_norm(values);
    return key_energy > 0 && value_energy > 0 ? balance * std::sqrt(value_energy / key_energy) : 1;
}

}  // namespace

MatrixD centred_moment(const AttentionInputStats& stats) {
    constexpr double kRounding = 1e-12;  // more than the difference of the two may lose
    MatrixD moment = stats.moment - stats.mean * stats.mean.transpose();
    moment.diagonal().array() += kRounding * stats.moment.diagonal().mean();
    return moment;
}

SharedKeyFactorizer::SharedKeyFactorizer(const OriginalAttention& layer, const SharedKeyMap& map,
                                         const QueryKeyMoments& moments, const Whitening& whitening,
                                         KeyWeighting weighting)
    : original_(layer), whitening_(whitening) {
    const std::int64_t dim = layer.head_dim, rope = map.rope_dim(), nope = map.nope_rows();
    const bool biased = layer.q_bias.size() > 0;
    const std::int64_t nope_queries = layer.heads * rope;  // where they begin
    weights_.o = layer.o;
    weights_.q.resize(nope_queries + layer.q.rows(), layer.q.cols());
    weights_.q.bottomRows(layer.q.rows()) = layer.q;
    if (biased) {
        weights_.q_bias.resize(weights_.q.rows());
        weights_.q_bias.tail(layer.q_bias.size()) = layer.q_bias;
    }
    query_maps_.resize(static_cast<std::size_t>(layer.heads));
    parallel_for(layer.heads, [&](std::int64_t head, std::vector<float>&) {
        const MatrixD to = map.query_map(head);
        const MatrixD rows = to.topRows(rope) * layer.q.middleRows(head * dim, dim).cast<double>();
        weights_.q.middleRows(head * rope, rope) = rows.cast<float>();
        if (biased) {
            const Eigen::VectorXd bias = to.topRows(rope) * layer.q_bias.segment(head * dim, dim).cast<double>();
            weights_.q_bias.segment(head * rope, rope) = bias.cast<float>();
        }
        query_maps_[static_cast<std::size_t>(head)] = to.bottomRows(nope);
    });
    MatrixD met = met_queries(query_maps_, moments);
    if (weighting == KeyWeighting::rms) met = MatrixD(met.diagonal().asDiagonal());
    key_factor_ = root_of_moment(met);
    const MatrixD keys = map.map_keys(layer.k.cast<double>());
    weights_.k_rope = keys.topRows(rope).cast<float>();
    if (layer.k_bias.size() > 0) {
        weights_.k_rope_bias = map.map_keys(layer.k_bias.cast<double>()).col(0).head(rope).cast<float>();
    }
    keys_ = whitening.apply((key_factor_.transpose() * keys.bottomRows(nope)).cast<float>());
    Matrix values(layer.v.rows(), layer.v.cols());
    for (std::int64_t head = 0; head < layer.kv_heads; ++head) {
        value_factors_.push_back(root_of_moment(output_gram(layer, head)));
        const MatrixD rows = value_factors_.back().transpose() * layer.v.middleRows(head * dim, dim).cast<double>();
        values.middleRows(head * dim, dim) = rows.cast<float>();
    }
    values_ = whitening.apply(values);
    if (layer.v_bias.size() == 0) return;
    weights_.up_v_bias.resize(layer.heads * dim);
    for (std::int64_t head = 0; head < layer.heads; ++head) {
        weights_.up_v_bias.segment(head * dim, dim) = layer.v_bias.segment(head / layer.group_size() * dim, dim);
    }
}

SharedKeyFactorizer::Result SharedKeyFactorizer::factorize(std::int64_t kv_rank, double balance,
                                                           const SvdOptions& svd) const {
    const double weight = key_weight(keys_, values_, balance);
    Matrix weighted(keys_.rows() + values_.rows(), keys_.cols());
    weighted << keys_ * static_cast<float>(weight), values_;
    SvdOptions options = svd;
    options.sigma = SigmaPlacement::up;
    LowRank factors = truncated_svd(weighted, kv_rank, options);
    Result result{weights_, factors.total_energy, factors.retained_energy};
    result.weights.down = whitening_.revert(factors.down);
    place_up(factors.up, weight, result.weights);
    return result;
}

void SharedKeyFactorizer::place_up(const Matrix& up, double key_weight, LatentWeights& to) const {
    const std::int64_t dim = original_.head_dim, heads = original_.heads, nope = keys_.rows();
    const MatrixD keys = without_weight(key_factor_, up.topRows(nope)).cast<double>() / key_weight;
    to.up_k.resize(heads * dim, up.cols());
    to.up_v.resize(heads * dim, up.cols());
    parallel_for(heads, [&](std::int64_t head, std::vector<float>&) {
        const std::int64_t kv_head = head / original_.group_size();
        const MatrixD rows = query_maps_[static_cast<std::size_t>(head)].transpose() * keys;
        to.up_k.middleRows(head * dim, dim) = rows.cast<float>();
        to.up_v.middleRows(head * dim, dim) =
            without_weight(value_factors_[static_cast<std::size_t>(kv_head)], up.middleRows(nope + kv_head * dim, dim));
    });
}

}  // namespace mha2mla
