#pragma once
#include "../linalg/gemm.hpp"
#include "mha2mla/model.hpp"

namespace mha2mla {

/// W_ukᵀ q_nope for every query head (MHA2MLA, appendix B): what meets the latent in place of the keys. The bias of
/// up_k is left out: it adds the same to all logits of a query.
///
/// The factors stay apart: merged, W_ukᵀ W_q would have rank·hidden numbers to read per head and step, instead of
/// nope_dim·hidden and, once for all heads of a KV head, nope_dim·rank; and nope_dim is less than the rank.
/// @param q [tokens, num_heads * nope_dim at a stride], out [tokens, num_heads * rank]
void absorb_queries(const LinearView& up_k, std::int64_t num_kv_heads, std::int64_t tokens, MatrixIn q,
                    std::int64_t group, float* out);

/// W_uv o + b for every query head. @param o [tokens, num_heads * rank], out [tokens, num_heads * head_dim]
void project_values(const LinearView& up_v, std::int64_t num_kv_heads, std::int64_t tokens, const float* o,
                    std::int64_t group, float* out);

}  // namespace mha2mla
