#pragma once
/// One layer's attention in MLA form, between the original's weights and a converted checkpoint's.

#include <array>
#include <cstdint>
#include <string_view>

#include "mha2mla/factorize.hpp"
#include "mha2mla/matrix.hpp"
#include "mha2mla/table.hpp"

namespace mha2mla {

/// The weights of one layer, rows in the order of the reference layout.
struct LatentWeights {
    Matrix q;       // [num_heads * head_dim, hidden], rows: all RoPE rows, then all NoPE rows
    Matrix k_rope;  // [num_kv_heads * rope_dim, hidden]
    Matrix down;    // [num_kv_heads * kv_rank, hidden]
    Matrix up_k;    // [num_kv_heads * (head_dim - rope_dim), num_kv_heads * kv_rank]
    Matrix up_v;    // [num_kv_heads * head_dim, num_kv_heads * kv_rank]
    Matrix o;       // [hidden, num_heads * head_dim]
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
