#include "branch.hpp"

namespace mha2mla {

void optional_norm(const NormView& view, const Matrix& x, Matrix& y) {
    if (view) return norm(view, x, y);
    y = x;
}

void optional_norm_gradient(const NormView& view, const Matrix& x, const Matrix& d_out, Matrix& dx,
                            const NormGradient& to) {
    if (view) return norm_gradient(view, x, d_out, dx, to);
    dx += d_out;
}

Matrix branch_gradient(const NormView& post, float scale, const Matrix& branch, const Matrix& d_hidden,
                       const NormGradient& to) {
    Matrix result = Matrix::Zero(branch.rows(), branch.cols());
    optional_norm_gradient(post, branch, scale * d_hidden, result, to);
    return result;
}

}  // namespace mha2mla
