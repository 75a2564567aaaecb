#include "project.hpp"

#include "../linalg/gemm.hpp"

namespace mha2mla {
namespace {

/// to = beta·to + aᵀ·b
void add_product(const Matrix& a, const Matrix& b, float beta, float* to) {
    team_multiply(a.cols(), b.cols(), a.rows(), {{a.data(), a.cols()}, true}, {{b.data(), b.cols()}}, beta,
                  {to, b.cols()}, ProductPrecision::split);
}

}  // namespace

void project(const LinearView& view, const Matrix& x, Matrix& y, ProductPrecision precision) {
    y.resize(x.rows(), view.out_features());
    linear(view, x.rows(), x.data(), y.data(), precision);
}

void project(const Matrix& x, const std::vector<Projected>& projections) {
    std::vector<LinearProduct> products;
    for (const Projected& projection : projections) {
        projection.y.resize(x.rows(), projection.view.out_features());
        products.push_back({&projection.view, projection.y.data()});
    }
    linear(products, x.rows(), x.data());
}

void project_gradient(const Matrix& x, const Matrix& dy, const LinearGradient& to) {
    if (to.weight != nullptr) add_product(dy, x, 1.0F, to.weight);
    if (to.bias != nullptr) {
        Eigen::Map<Eigen::RowVectorXf>(to.bias, dy.cols()) += dy.cast<double>().colwise().sum().cast<float>();
    }
}

void project(const Matrix& x, const Matrix& w, const Vector& bias, Matrix& y) {
    y.resize(x.rows(), w.rows());
    team_multiply(x.rows(), w.rows(), x.cols(), {{x.data(), x.cols()}}, {{w.data(), w.cols()}, true}, 0.0F,
                  {y.data(), y.cols()}, ProductPrecision::split);
    if (bias.size() > 0) y.rowwise() += bias.transpose();
}

void weight_gradient(const Matrix& a, const Matrix& b, Matrix& to) {
    to.resize(a.cols(), b.cols());
    add_product(a, b, 0.0F, to.data());
}

void back_project(const Matrix& x, const Matrix& w, bool add, Matrix& y) {
    if (!add) y.setZero(x.rows(), w.cols());
    team_multiply(x.rows(), w.cols(), w.rows(), {{x.data(), x.cols()}}, {{w.data(), w.cols()}}, 1.0F,
                  {y.data(), y.cols()}, ProductPrecision::split);
}

}  // namespace mha2mla
