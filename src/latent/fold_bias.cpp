#include "fold_bias.hpp"

#include <Eigen/Cholesky>
#include <algorithm>
#include <utility>

#include "mha2mla/error.hpp"
#include "mha2mla/factorize.hpp"

namespace mha2mla {

double fold_biases(OriginalAttention& layer, const AttentionInputStats& stats) {
    constexpr double kLeastRidge = 1e-30;
    MatrixD moment = stats.moment;
    moment.diagonal().array() += std::max(Whitening::kRidge * moment.diagonal().mean(), kLeastRidge);
    const Eigen::LLT<MatrixD> cholesky(moment);
    if (cholesky.info() != Eigen::Success) {
        throw Error(ErrorCode::numeric,
                    "hidden states are not finite; does the checkpoint hold NaN or infinite weights?");
    }
    const Eigen::VectorXd constant = cholesky.solve(stats.mean);
    for (const auto& [weight, bias] :
         {std::pair{&layer.q, &layer.q_bias}, {&layer.k, &layer.k_bias}, {&layer.v, &layer.v_bias}}) {
        if (bias->size() == 0) continue;
        *weight += (bias->cast<double>() * constant.transpose()).cast<float>();
        bias->resize(0);
    }
    return 1 - 2 * constant.dot(stats.mean) + constant.dot(stats.moment * constant);
}

}  // namespace mha2mla
