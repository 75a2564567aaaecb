#pragma once
#include "mha2mla/matrix.hpp"
#include "mha2mla/model.hpp"

namespace mha2mla {

/// Queries of a layer in MLA form before RoPE, [tokens, num_heads * (rope_dim + nope_dim)].
/// @param input normed hidden states. @param low where the queries' own latent goes, if they have one.
void project_latent_queries(const LatentAttentionView& view, const Matrix& input, Matrix& low, Matrix& q);

/// What is cached of keys and values: the normed latent. @param down down_k or down_v of the view.
void project_latent(const LatentAttentionView& view, const LinearView& down, const Matrix& input, Matrix& latent);

/// `dim` numbers of each head side by side, [tokens, heads * dim].
[[nodiscard]] Matrix gather_heads(const Matrix& from, const HeadRows& rows, std::int64_t heads, std::int64_t dim);

}  // namespace mha2mla
