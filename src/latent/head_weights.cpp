#include "head_weights.hpp"

#include <Eigen/Cholesky>
#include <algorithm>

#include "../support/parallel.hpp"
#include "mha2mla/error.hpp"

namespace mha2mla {
namespace {

MatrixD factor_of(MatrixD moment) {
    if (moment.size() == 0) return moment;
    moment.diagonal().array() += std::max(Whitening::kRidge * moment.diagonal().mean(), 1e-30);
    const Eigen::LLT<MatrixD> cholesky(moment);
    if (cholesky.info() != Eigen::Success || !moment.allFinite()) {
        throw Error(ErrorCode::numeric,
                    "queries or output projections are not finite; does the checkpoint hold NaN or infinite weights?");
    }
    return cholesky.matrixL();
}

}  // namespace

HeadWeights head_weights(const LatentLayer& latent, const Whitening& whitening, const Matrix& sample) {
    const LatentShape& shape = latent.shape;
    const std::int64_t nope = shape.nope_dim();
    const std::int64_t group = shape.group_size();
    const Matrix q = latent.weights.q.bottomRows(shape.num_heads * nope);
    const MatrixD seen = whitening.apply(q).cast<double>();  // the products of its rows are E qqᵀ without the bias
    const Eigen::VectorXd bias =
        latent.weights.q_bias.tail(latent.weights.q_bias.size() == 0 ? 0 : shape.num_heads * nope).cast<double>();
    const Eigen::VectorXd mean = q.cast<double>() * mean_of_rows(sample);
    HeadWeights weights;
    weights.key.resize(static_cast<std::size_t>(shape.num_kv_heads));
    weights.value.resize(static_cast<std::size_t>(shape.num_kv_heads));
    parallel_for(shape.num_kv_heads, [&](std::int64_t kv_head, std::vector<float>&) {
        MatrixD key = MatrixD::Zero(nope, nope), value = MatrixD::Zero(shape.head_dim, shape.head_dim);
        for (std::int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
            const auto rows = seen.middleRows(head * nope, nope);
            key += rows * rows.transpose();
            if (bias.size() > 0) {
                const auto b = bias.segment(head * nope, nope), m = mean.segment(head * nope, nope);
                key += b * m.transpose() + m * b.transpose() + b * b.transpose();
            }
            const MatrixD o = latent.weights.o.middleCols(head * shape.head_dim, shape.head_dim).cast<double>();
            value += o.transpose() * o;
        }
        weights.key[static_cast<std::size_t>(kv_head)] = factor_of(std::move(key));
        weights.value[static_cast<std::size_t>(kv_head)] = factor_of(std::move(value));
    });
    return weights;
}

}  // namespace mha2mla
