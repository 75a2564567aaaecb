#include "query_key_moments.hpp"

#include <algorithm>

#include "../linalg/blas.hpp"
#include "../model/head_order.hpp"
#include "../support/parallel.hpp"
#include "mha2mla/error.hpp"

namespace mha2mla {
namespace {

/// Rows of one head: W, W·C, W·μ and the bias.
struct ProjectedHead {
    MatrixD weight, by_moment;
    Eigen::VectorXd mean, bias;
};

ProjectedHead head_rows(const Matrix& weight, const Vector& bias, std::int64_t head, std::int64_t head_dim,
                        const AttentionInputStats& stats) {
    const std::int64_t hidden = weight.cols();
    ProjectedHead rows;
    rows.weight = weight.middleRows(head * head_dim, head_dim).cast<double>();
    rows.by_moment.resize(head_dim, hidden);
    gemm(CblasNoTrans, CblasNoTrans, head_dim, hidden, hidden, 1.0, rows.weight.data(), hidden, stats.moment.data(),
         hidden, 0.0, rows.by_moment.data(), hidden);
    rows.mean = rows.weight * stats.mean;
    rows.bias = bias.size() == 0 ? Eigen::VectorXd::Zero(head_dim)
                                 : Eigen::VectorXd(bias.segment(head * head_dim, head_dim).cast<double>());
    return rows;
}

/// E (Ax + a)(Bx + b)ᵀ
MatrixD cross_moment(const ProjectedHead& a, const ProjectedHead& b) {
    MatrixD moment = a.mean * b.bias.transpose() + a.bias * b.mean.transpose() + a.bias * b.bias.transpose();
    gemm(CblasNoTrans, CblasTrans, a.weight.rows(), b.weight.rows(), a.weight.cols(), 1.0, a.by_moment.data(),
         a.weight.cols(), b.weight.data(), b.weight.cols(), 1.0, moment.data(), moment.cols());
    return moment;
}

[[noreturn]] void refuse_moments() {
    throw Error(ErrorCode::numeric,
                "second moments of queries or keys are not finite; does the checkpoint hold NaN or infinite weights?");
}

}  // namespace

std::vector<HeadPair> head_pairs(const RotaryRule& rule, std::int64_t head_dim) {
    const HeadOrder order = head_order(rule, head_dim);
    std::vector<HeadPair> pairs;
    for (std::size_t k = 0; k < order.dims.size() / 2; ++k) {
        const double frequency = k < rule.frequencies.size() ? rule.frequencies[k] : 0;
        pairs.push_back({order.dims[k], order.dims[k + order.dims.size() / 2], frequency});
    }
    return pairs;
}

void OriginalAttention::take_gain(const RotaryRule& rule) {
    const HeadOrder order = head_order(rule, head_dim);
    order.take_gain(q);
    Matrix bias = q_bias;
    order.take_gain(bias);
    q_bias = bias;
}

QueryKeyMoments query_key_moments(const OriginalAttention& layer, const AttentionInputStats& stats) {
    const std::int64_t dim = layer.head_dim;
    QueryKeyMoments moments;
    moments.query.resize(static_cast<std::size_t>(layer.heads));
    parallel_for(layer.heads, [&](std::int64_t head, std::vector<float>&) {
        const ProjectedHead rows = head_rows(layer.q, layer.q_bias, head, dim, stats);
        moments.query[static_cast<std::size_t>(head)] = cross_moment(rows, rows);
    });
    std::vector<ProjectedHead> keys(static_cast<std::size_t>(layer.kv_heads));
    parallel_for(layer.kv_heads, [&](std::int64_t head, std::vector<float>&) {
        keys[static_cast<std::size_t>(head)] = head_rows(layer.k, layer.k_bias, head, dim, stats);
    });
    moments.key.resize(layer.kv_heads * dim, layer.kv_heads * dim);
    parallel_for(layer.kv_heads, [&](std::int64_t head, std::vector<float>&) {
        for (std::int64_t other = 0; other < layer.kv_heads; ++other) {
            moments.key.block(head * dim, other * dim, dim, dim) =
                cross_moment(keys[static_cast<std::size_t>(head)], keys[static_cast<std::size_t>(other)]);
        }
    });
    const bool finite = std::all_of(moments.query.begin(), moments.query.end(),
                                    [](const MatrixD& moment) { return moment.allFinite(); });
    if (!finite || !moments.key.allFinite()) refuse_moments();
    return moments;
}

}  // namespace mha2mla
