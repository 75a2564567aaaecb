#pragma once
#include "mha2mla/matrix.hpp"
#include "mha2mla/model.hpp"

namespace mha2mla {

/// What a layer in MLA form makes of its input.
struct LatentProjections {
    Matrix& q;       ///< before RoPE, [tokens, num_heads * (rope_dim + nope_dim)]
    Matrix& low;     ///< the queries' own latent, if they have one
    Matrix& k_rope;  ///< before RoPE
    Matrix& latent;  ///< the normed latent of keys, if they have one
};
/// @param input normed hidden states
void project_latent_input(const LatentAttentionView& view, const Matrix& input, const LatentProjections& to);

/// What is cached of keys and values: the normed latent. @param down down_k or down_v of the view.
void project_latent(const LatentAttentionView& view, const LinearView& down, const Matrix& input, Matrix& latent);

/// `dim` numbers of each head side by side, [tokens, heads * dim].
[[nodiscard]] Matrix gather_heads(const Matrix& from, const HeadRows& rows, std::int64_t heads, std::int64_t dim);

}  // namespace mha2mla
