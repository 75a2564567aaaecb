#pragma once
#include "../linalg/gemm.hpp"
#include "mha2mla/model.hpp"

namespace mha2mla {

/// Heads of an up projection.
struct UpRows {
    HeadRows at;
    std::int64_t heads = 0, dim = 0;
    std::int64_t group = 1;  // query heads of each
};

/// W_ukᵀ q_nope for every query head (MHA2MLA, appendix B), which is multiplied by the latent instead of the keys. The
/// bias of up_k is omitted because it adds the same to all logits of a query.
///
/// The factors are not merged: W_ukᵀ W_q would have rank·hidden numbers per head to read in each step; the factors have
/// nope_dim·hidden per head and nope_dim·rank per KV head, and nope_dim is less than the rank.
/// @param rows of the heads of keys in up_k; the query heads are shared out among `heads` of them.
/// @param q [tokens, num_heads * nope_dim at a stride], out [tokens, num_heads * rank]
void absorb_queries(const LinearView& up_k, const UpRows& rows, std::int64_t tokens, MatrixIn q, float* out);

/// W_uv o + b for every query head.
/// @param o [tokens, num_heads * rank], out [tokens, num_heads * head_dim]
void project_values(const LinearView& up_v, const UpRows& rows, std::int64_t tokens, const float* o, float* out);

}  // namespace mha2mla
