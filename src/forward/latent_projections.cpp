#include "latent_projections.hpp"

#include "norm.hpp"
#include "project.hpp"

namespace mha2mla {

void project_latent_queries(const LatentAttentionView& view, const Matrix& input, Matrix& low, Matrix& q) {
    if (view.q_down.weight == nullptr) return project(view.q, input, q);
    project(view.q_down, input, low);
    if (view.q_norm) norm(view.q_norm, low, low);
    project(view.q, low, q);
}

void project_latent(const LatentAttentionView& view, const LinearView& down, const Matrix& input, Matrix& latent) {
    project(down, input, latent);
    if (view.latent_norm) norm(view.latent_norm, latent, latent);
}

Matrix gather_heads(const Matrix& from, const HeadRows& rows, std::int64_t heads, std::int64_t dim) {
    Matrix result(from.rows(), heads * dim);
    for (std::int64_t head = 0; head < heads; ++head) {
        result.middleCols(head * dim, dim) = from.middleCols(rows.first + head * rows.stride, dim);
    }
    return result;
}

}  // namespace mha2mla
