#pragma once
#include "../linalg/gemm.hpp"
#include "mha2mla/model.hpp"

namespace mha2mla {

/// W_ukᵀ q_nope for every query head (MHA2MLA, appendix B), which is multiplied by the latent instead of the keys. The
/// bias of up_k is omitted because it adds the same to all logits of a query.
///
/// The factors are not merged: W_ukᵀ W_q would have rank·hidden numbers per head to read in each step; the factors have
/// nope_dim·hidden per head and nope_dim·rank per KV head, and nope_dim is less than the rank.
/// @param q [tokens, num_heads * nope_dim at a stride], out [tokens, num_heads * rank]
void absorb_queries(const LinearView& up_k, std::int64_t num_kv_heads, std::int64_t tokens, MatrixIn q,
                    std::int64_t group, float* out);

/// W_uv o + b for every query head. @param o [tokens, num_heads * rank], out [tokens, num_heads * head_dim]
void project_values(const LinearView& up_v, std::int64_t num_kv_heads, std::int64_t tokens, const float* o,
                    std::int64_t group, float* out);

}  // namespace mha2mla
