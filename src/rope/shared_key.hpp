#pragma once
/// One rope key for all heads (docs/method.md): which combinations of the heads' rotary components there are, and what
/// keys and queries look like in terms of them.
///
/// A head's rotary pair is a complex number, z = first + i·second, and RoPE multiplies it by e^(iθt). An invertible
/// complex map T of one pair's keys over all KV heads commutes with that, so that with κ' = T·κ for the keys and
/// q' = (T⁻¹ of the head's rows)ᴴ·q for the queries no score changes. Some components of κ' then keep their rotation in
/// slots of one rope key, the others stop rotating.

#include <complex>
#include <cstdint>
#include <vector>

#include "query_key_moments.hpp"

namespace mha2mla {

using MatrixC = Eigen::MatrixXcd;

/// A basis for the keys of some neighbouring pairs over all KV heads. Its channels are (KV head, pair), the pair
/// fastest.
struct SharedKeyBlock {
    std::int64_t first_pair = 0, pairs = 0;
    MatrixC to;                // T, [components, channels]
    MatrixC from;              // T⁻¹, [channels, components]
    Eigen::VectorXd strength;  // s_c = E|κ'_c|² = E|q'_c|², falling; [components]
};

/// The balanced basis of every block of `fold` neighbouring pairs; the last block has what is left. With the Cholesky
/// factors L_k and L_q of the blocks' key and query moments, each query head in its KV head's place, and
/// L_qᴴ·L_k = U·S·Vᴴ: T = S^½·Vᴴ·L_k⁻¹. Blocks of more than one pair treat them as if they had one frequency.
///
/// Both moments get kBasisRidge of their mean diagonal added to the diagonal, and at least kLeastBasisRidge: keys may
/// be zero, and the text shorter than there are channels. Costs O((kv_heads · fold)³) a block.
/// @throws Error{usage} if fold is not in [1, pairs of a head], Error{numeric}.
[[nodiscard]] std::vector<SharedKeyBlock> balanced_blocks(const OriginalAttention& layer,
                                                          const QueryKeyMoments& moments, std::int64_t fold);
inline constexpr double kBasisRidge = 1e-6;
inline constexpr double kLeastBasisRidge = 1e-30;

/// RoRoPE with FreqFold (TransMLA, Meng et al. 2025, section 4.2): a real orthogonal basis of every block, the
/// principal components of its keys, whose first and second halves of heads count as samples alike. `strength` are the
/// variances.
/// @throws Error{usage} if fold is not in [1, pairs of a head], Error{numeric}.
[[nodiscard]] std::vector<SharedKeyBlock> principal_blocks(const OriginalAttention& layer,
                                                           const QueryKeyMoments& moments, std::int64_t fold);
/// Every head's keys as they are, in a block for each pair.
[[nodiscard]] std::vector<SharedKeyBlock> plain_blocks(const OriginalAttention& layer);

/// Where a component is.
struct SharedKeyComponent {
    std::int64_t block = 0, index = 0;
};
/// All of them, block after block.
[[nodiscard]] std::vector<SharedKeyComponent> components_of(const std::vector<SharedKeyBlock>& blocks);

/// A component that keeps its rotation, and the frequency that it gets.
struct SharedKeySlot {
    SharedKeyComponent component;
    double frequency = 0;
};

/// What queries are multiplied by where a pair of frequency θ turns at ω instead: a component that no longer rotates
/// (ω = 0), or one whose slot has another frequency. With r = Σ p(Δ)·e^(i(θ−ω)Δ) over the attention's distances:
enum class QueryTurn : std::uint8_t {
    none,   ///< 1
    phase,  ///< r/|r|
    mean,   ///< r, which minimises the mean square error that is left
};

/// r for every pair of a head and every frequency asked for, by row of `attention`. [pairs, frequencies]
[[nodiscard]] std::vector<MatrixC> mean_turns(const std::vector<HeadPair>& pairs, const MatrixD& attention,
                                              const std::vector<double>& frequencies);
/// A query's factor for such an r.
[[nodiscard]] std::complex<double> query_factor(std::complex<double> mean_turn, QueryTurn turn);

/// The whole map of a layer. Rows of mapped keys and queries come as: the real parts of the components in slots, their
/// imaginary parts, the real parts of the others, their imaginary parts. So the rope key is in halves, as Hugging
/// Face's `rotate_half` has it.
class SharedKeyMap {
public:
    /// @param attention as in AttentionInputStats.
    SharedKeyMap(const OriginalAttention& layer, std::vector<SharedKeyBlock> blocks, std::vector<SharedKeySlot> slots,
                 const MatrixD& attention, QueryTurn turn);

    [[nodiscard]] std::int64_t rope_dim() const { return 2 * static_cast<std::int64_t>(slots_.size()); }
    /// Rows of what stops rotating.
    [[nodiscard]] std::int64_t nope_rows() const { return kv_heads_ * head_dim_ - rope_dim(); }
    [[nodiscard]] const std::vector<SharedKeySlot>& slots() const { return slots_; }
    [[nodiscard]] std::vector<double> frequencies() const;

    /// Keys in the new basis. @param keys [kv_heads * head_dim, columns], of a weight or of one bias.
    [[nodiscard]] MatrixD map_keys(const MatrixD& keys) const;
    /// The matrix that takes a query of this head there. [rope_dim + nope_rows, head_dim]
    [[nodiscard]] MatrixD query_map(std::int64_t head) const;

private:
    std::int64_t kv_heads_, head_dim_, group_;
    std::vector<HeadPair> pairs_;
    std::vector<SharedKeyBlock> blocks_;
    std::vector<SharedKeySlot> slots_;
    std::vector<std::vector<std::int64_t>> place_;  // of a component among slots, or slots + among the others
    std::vector<MatrixC> factors_;                  // of queries, by row of attention; [pairs, slots + 1]

    /// Rows of the real and imaginary part of a component.
    struct Rows {
        std::int64_t real, imaginary;
    };
    [[nodiscard]] Rows rows_of(std::size_t block, std::int64_t component) const;
};

}  // namespace mha2mla
