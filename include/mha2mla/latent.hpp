#pragma once
/// One layer's attention in MLA form, between the original's weights and a converted checkpoint's.

#include <array>
#include <cstdint>
#include <string_view>

#include "mha2mla/factorize.hpp"
#include "mha2mla/matrix.hpp"
#include "mha2mla/table.hpp"

namespace mha2mla {

/// The weights of one layer; LatentShape says how many heads and latents there are.
struct LatentWeights {
    Matrix q;  // [num_heads * (rope_dim + nope_dim), hidden], rows: all heads' RoPE rows, then all heads' NoPE rows
    Matrix k_rope;  // [rope_keys * rope_dim, hidden]
    Matrix down;    // [latents * kv_rank, hidden]
    Matrix up_k;    // [up_heads * nope_dim, latents * kv_rank]
    Matrix up_v;    // [up_heads * head_dim, latents * kv_rank]
    Matrix o;       // [hidden, num_heads * head_dim]
    Vector q_bias, k_rope_bias, up_k_bias,
        up_v_bias;  // of the rows above; empty where there is none. o's is left to others
};

/// The angle by which a pair without RoPE is turned, once and for all positions, folded into the query projection.
enum class NopePhase : std::uint8_t {
    zero,    ///< none, as in the paper
    fitted,  ///< and with it a factor: the closest on text to what the rotation did to the attention's logits
};
struct NopePhaseRow {
    NopePhase phase;
    std::string_view name, what;
};
inline constexpr std::array<NopePhaseRow, 2> kNopePhases = {{
    {NopePhase::zero, "zero", "not turned, as in the paper"},
    {NopePhase::fitted, "fitted", "turned and scaled for each query head as its rotation did on average on your text"},
}};
static_assert(in_order(kNopePhases, &NopePhaseRow::phase));

}  // namespace mha2mla
