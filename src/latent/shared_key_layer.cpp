#include "shared_key_layer.hpp"

#include <algorithm>
#include <cmath>

#include "../linalg/blas.hpp"
#include "../linalg/cholesky.hpp"
#include "../linalg/team_gemm.hpp"
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
        if (cholesky_in_place(ridged)) return ridged;
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
MatrixD without_weight(const MatrixD& factor, const Eigen::Ref<const Matrix>& rows) {
    MatrixD result = rows.cast<double>();
    if (factor.size() > 0) solve_transposed(factor, result);
    return result;
}

/// Lᵀ·rows
Matrix with_weight(const MatrixD& factor, const Eigen::Ref<const MatrixD>& rows) {
    const std::int64_t n = rows.rows(), columns = rows.cols();
    MatrixD result(n, columns);
    team_gemm(CblasTrans, CblasNoTrans, n, columns, n, factor.data(), n, rows.data(), rows.outerStride(), 0,
              result.data(), columns);
    return result.cast<float>();
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
    : original_(layer), whitening_(whitening), frame_(shared_key_frame(layer, map)) {
    const std::int64_t dim = layer.head_dim;
    MatrixD met = met_queries(frame_.query_maps, moments);
    if (weighting == KeyWeighting::rms) met = MatrixD(met.diagonal().asDiagonal());
    key_factor_ = root_of_moment(met);
    const MatrixD keys = map.map_keys(layer.k.cast<double>());
    keys_ = whitening.apply(with_weight(key_factor_, keys.bottomRows(map.nope_rows())));
    Matrix values(layer.v.rows(), layer.v.cols());
    for (std::int64_t head = 0; head < layer.kv_heads; ++head) {
        value_factors_.push_back(root_of_moment(output_gram(layer, head)));
        values.middleRows(head * dim, dim) =
            with_weight(value_factors_.back(), layer.v.middleRows(head * dim, dim).cast<double>());
    }
    values_ = whitening.apply(values);
}

SharedKeyFactorizer::Result SharedKeyFactorizer::factorize(std::int64_t kv_rank, double balance) const {
    const double weight = key_weight(keys_, values_, balance);
    Matrix weighted(keys_.rows() + values_.rows(), keys_.cols());
    weighted << keys_ * static_cast<float>(weight), values_;
    SvdOptions options;
    options.sigma = SigmaPlacement::up;
    const LowRank factors = truncated_svd(weighted, kv_rank, options);
    Result result{frame_.weights, factors.total_energy, factors.retained_energy};
    result.weights.down = whitening_.revert(factors.down);
    const std::int64_t dim = original_.head_dim, nope = keys_.rows();
    MatrixD values(values_.rows(), kv_rank);
    for (std::int64_t head = 0; head < original_.kv_heads; ++head) {
        values.middleRows(head * dim, dim) = without_weight(value_factors_[static_cast<std::size_t>(head)],
                                                            factors.up.middleRows(nope + head * dim, dim));
    }
    place_up(original_, frame_, without_weight(key_factor_, factors.up.topRows(nope)) / weight, values, result.weights);
    return result;
}

}  // namespace mha2mla
