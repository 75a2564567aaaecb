#include "refit_output.hpp"

#include <Eigen/Cholesky>
#include <algorithm>

#include "../linalg/gemm.hpp"
#include "mha2mla/error.hpp"

namespace mha2mla {

double refit_output(LatentLayer& layer, const AttentionTarget& target, const OutputMeasure& measure) {
    Matrix& o = layer.weights.o;
    MatrixD gram = MatrixD::Zero(o.cols(), o.cols()), missing = MatrixD::Zero(o.cols(), o.rows());
    LatentActivations at;
    double loss = 0;  // Σ weight·‖what is left‖²
    for (std::int64_t first = 0; first < measure.tokens; first += measure.block_tokens) {
        const std::int64_t count = std::min(measure.block_tokens, measure.tokens - first);
        run_latent(layer, measure.seq_len, target.input.middleRows(first, count), at);
        const Matrix weighted = (target.weight.segment(first, count).asDiagonal() * at.mixed).transpose();
        const Matrix mixed = at.mixed.transpose(),
                     left = (target.output.middleRows(first, count) - at.output).transpose();
        const Eigen::VectorXd squares = left.cast<double>().colwise().squaredNorm().transpose();
        loss += squares.dot(target.weight.segment(first, count).cast<double>());
        Matrix product(o.cols(), o.cols());
        multiply_abt(o.cols(), o.cols(), count, 1, {weighted.data(), count}, {mixed.data(), count}, 0,
                     {product.data(), o.cols()});
        gram += product.cast<double>();
        product.resize(o.cols(), o.rows());
        multiply_abt(o.cols(), o.rows(), count, 1, {weighted.data(), count}, {left.data(), count}, 0,
                     {product.data(), o.rows()});
        missing += product.cast<double>();
    }
    const MatrixD without_ridge = gram;
    gram.diagonal().array() += std::max(kRefitRidge * gram.diagonal().mean(), 1e-30);
    const Eigen::LLT<MatrixD> cholesky(gram);
    if (cholesky.info() != Eigen::Success) {
        throw Error(ErrorCode::numeric,
                    "the attention's output is not finite; does the checkpoint hold NaN or infinite weights?");
    }
    const MatrixD change = cholesky.solve(missing);
    o += change.transpose().cast<float>();
    loss += change.cwiseProduct(without_ridge * change - 2 * missing).sum();
    return std::max(0.0, loss) / static_cast<double>(measure.tokens * o.rows());
}

}  // namespace mha2mla
