#include "latent_projections.hpp"

#include "norm.hpp"
#include "project.hpp"

namespace mha2mla {

void project_latent_input(const LatentAttentionView& view, const Matrix& input, const LatentProjections& to) {
    const bool low_rank = view.q_down.weight != nullptr, latent_keys = view.down_k.weight != nullptr;
    std::vector<Projected> maps = {{low_rank ? view.q_down : view.q, low_rank ? to.low : to.q},
                                   {view.k_rope, to.k_rope}};
    if (latent_keys) maps.push_back({view.down_k, to.latent});
    project(input, maps);
    if (low_rank) {
        if (view.q_norm) norm(view.q_norm, to.low, to.low);
        project(view.q, to.low, to.q);
    }
    if (latent_keys && view.latent_norm) norm(view.latent_norm, to.latent, to.latent);
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
