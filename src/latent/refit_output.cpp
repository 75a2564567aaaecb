#include "refit_output.hpp"

#include <algorithm>

#include "../forward/for_each_token.hpp"
#include "../linalg/cholesky.hpp"
#include "../linalg/team_gemm.hpp"
#include "mha2mla/error.hpp"

namespace mha2mla {

double refit_output(LatentLayer& layer, const AttentionTarget& target, const OutputMeasure& measure) {
    Matrix& o = layer.weights.o;
    MatrixD gram = MatrixD::Zero(o.cols(), o.cols()), missing = MatrixD::Zero(o.rows(), o.cols());
    LatentActivations at;
    Matrix weighted, left, product;
    Eigen::VectorXd losses;
    double loss = 0;                                               // Σ weight·‖what is left‖²
    const auto add_product = [&](const Matrix& a, MatrixD& sum) {  // aᵀ·weighted
        product.resize(a.cols(), weighted.cols());
        team_gemm(CblasTrans, CblasNoTrans, a.cols(), weighted.cols(), a.rows(), a.data(), a.cols(), weighted.data(),
                  weighted.cols(), 0, product.data(), product.cols());
        constexpr std::int64_t kStrip = 64;
        parallel_for((product.rows() + kStrip - 1) / kStrip, [&](std::int64_t strip, std::vector<float>&) {
            const std::int64_t first = strip * kStrip, count = std::min(kStrip, product.rows() - first);
            sum.middleRows(first, count) += product.middleRows(first, count).cast<double>();
        });
    };
    for (std::int64_t first = 0; first < measure.tokens; first += measure.block_tokens) {
        const std::int64_t count = std::min(measure.block_tokens, measure.tokens - first);
        run_latent(layer, measure.seq_len, target.input.middleRows(first, count), at);
        weighted.resize(count, o.cols());
        left.resize(count, o.rows());
        losses.resize(count);
        for_each_token(count, [&](std::int64_t t) {
            const float weight = target.weight(first + t);
            weighted.row(t) = weight * at.mixed.row(t);
            left.row(t) = target.output.row(first + t) - at.output.row(t);
            losses(t) = static_cast<double>(weight) * left.row(t).cast<double>().squaredNorm();
        });
        loss += losses.sum();
        add_product(at.mixed, gram);
        add_product(left, missing);
    }
    const double ridge = std::max(kRefitRidge * gram.diagonal().mean(), 1e-30);
    gram.diagonal().array() += ridge;
    if (!gram.allFinite() || !cholesky_in_place(gram)) {
        throw Error(ErrorCode::numeric,
                    "the attention's output is not finite; does the checkpoint hold NaN or infinite weights?");
    }
    MatrixD change = missing;  // · gram⁻¹
    solve_rows(gram, change);
    o += change.cast<float>();
    // With G for the Gram matrix without its ridge: tr(change·G·changeᵀ) - 2 tr(change·missingᵀ).
    loss -= change.cwiseProduct(missing).sum() + ridge * change.squaredNorm();
    return std::max(0.0, loss) / static_cast<double>(measure.tokens * o.rows());
}

}  // namespace mha2mla
