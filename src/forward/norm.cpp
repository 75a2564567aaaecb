#include "norm.hpp"

#include <cmath>

#include "../linalg/elementwise.hpp"
#include "for_each_token.hpp"

namespace mha2mla {
namespace {

/// The columns that are normed together, and what multiplies them.
struct Groups {
    std::int64_t width, count;
    Matrix scale;  // [1 or count, width], the offset included

    Groups(const NormView& view, std::int64_t columns)
        : width(view.weight->shape.back()), count(columns / width), scale(floats(*view.weight, width)) {
        if (view.rule.weight_offset != 0) scale.array() += view.rule.weight_offset;
    }
    [[nodiscard]] const float* scale_of(std::int64_t group) const { return scale.row(group % scale.rows()).data(); }
    /// Where a group's weight stands in the tensor.
    [[nodiscard]] std::int64_t weight_at(std::int64_t group) const { return group % scale.rows() * width; }

    static Matrix floats(const TensorView& tensor, std::int64_t width) {
        Matrix result(tensor.rows() * tensor.cols() / width, width);
        to_float(tensor, 0, {result.data(), static_cast<std::size_t>(result.size())});
        return result;
    }
};

void layer_norm_row(const float* x, const float* scale, double eps, std::int64_t width, float* out) {
    const auto row = Eigen::Map<const Eigen::ArrayXf>(x, width).cast<double>();
    const double mean = row.mean();
    const double factor = 1 / std::sqrt((row - mean).square().mean() + eps);
    for (std::int64_t i = 0; i < width; ++i) {
        out[i] = static_cast<float>((static_cast<double>(x[i]) - mean) * factor) * scale[i];
    }
}

using Row = Eigen::Map<const Eigen::RowVectorXf>;

/// The derivative by a row, from that by the row times `factor` = 1 / √(mean square + eps).
Eigen::RowVectorXd back_through(const Eigen::RowVectorXd& row, const Eigen::RowVectorXd& d, double factor) {
    return factor * d - (factor * factor * factor * row.dot(d) / static_cast<double>(row.size())) * row;
}
double factor_of(const Eigen::RowVectorXd& row, double eps) {
    return 1 / std::sqrt(row.squaredNorm() / static_cast<double>(row.size()) + eps);
}

}  // namespace

void norm(const NormView& view, Eigen::Ref<const Matrix> x, Matrix& out) {
    const Groups groups(view, x.cols());
    const auto norm_row = view.rule.kind == NormRule::Kind::rms ? rms_norm_row : layer_norm_row;
    const Matrix bias = view.bias != nullptr ? Groups::floats(*view.bias, groups.width) : Matrix();
    out.resize(x.rows(), x.cols());
    for_each_token(x.rows(), [&](std::int64_t token) {
        for (std::int64_t group = 0; group < groups.count; ++group) {
            float* to = out.row(token).data() + group * groups.width;
            norm_row(x.row(token).data() + group * groups.width, groups.scale_of(group), view.rule.eps, groups.width,
                     to);
            if (bias.size() > 0) {
                Eigen::Map<Eigen::RowVectorXf>(to, groups.width) += bias.row(group % bias.rows());
            }
        }
    });
}

void norm_gradient(const NormView& view, const Matrix& x, const Matrix& d_out, Matrix& dx, const NormGradient& to) {
    const Groups groups(view, x.cols());
    const bool centred = view.rule.kind == NormRule::Kind::layer;
    // Sums over the tokens of a block, added up in the order of the blocks.
    const std::int64_t blocks = (x.rows() + kTokenBlock - 1) / kTokenBlock;
    MatrixD d_weight, d_bias;
    if (to.weight != nullptr) d_weight.setZero(blocks, groups.scale.size());
    if (to.bias != nullptr) d_bias.setZero(blocks, groups.scale.size());
    for_each_token(x.rows(), [&](std::int64_t t) {
        for (std::int64_t group = 0; group < groups.count; ++group) {
            const std::int64_t first = group * groups.width;
            const Row scale(groups.scale_of(group), groups.width);
            const auto d_row = d_out.row(t).segment(first, groups.width);
            Eigen::RowVectorXd row = x.row(t).segment(first, groups.width).cast<double>();
            if (centred) row.array() -= row.mean();
            Eigen::RowVectorXd d = d_row.cwiseProduct(scale).cast<double>();
            if (centred) d.array() -= d.mean();
            const double factor = factor_of(row, view.rule.eps);
            dx.row(t).segment(first, groups.width) += back_through(row, d, factor).cast<float>();
            const std::int64_t at = groups.weight_at(group);
            if (to.weight != nullptr) {
                d_weight.row(t / kTokenBlock).segment(at, groups.width) +=
                    factor * row.cwiseProduct(d_row.cast<double>());
            }
            if (to.bias != nullptr) {
                d_bias.row(t / kTokenBlock).segment(at, groups.width) += d_row.cast<double>();
            }
        }
    });
    const std::int64_t size = groups.scale.size();
    if (to.weight != nullptr) {
        Eigen::Map<Eigen::RowVectorXf>(to.weight, size) += d_weight.colwise().sum().cast<float>();
    }
    if (to.bias != nullptr) Eigen::Map<Eigen::RowVectorXf>(to.bias, size) += d_bias.colwise().sum().cast<float>();
}

void rms_norm(double eps, const Matrix& x, Matrix& out) {
    const Eigen::RowVectorXf scale = Eigen::RowVectorXf::Ones(x.cols());
    out.resize(x.rows(), x.cols());
    for_each_token(x.rows(), [&](std::int64_t t) {
        rms_norm_row(x.row(t).data(), scale.data(), eps, x.cols(), out.row(t).data());
    });
}

void rms_norm_gradient(double eps, const Matrix& x, const Matrix& d_out, Matrix& dx) {
    for_each_token(x.rows(), [&](std::int64_t t) {
        const Eigen::RowVectorXd row = x.row(t).cast<double>(), d = d_out.row(t).cast<double>();
        dx.row(t) += back_through(row, d, factor_of(row, eps)).cast<float>();
    });
}

}  // namespace mha2mla
