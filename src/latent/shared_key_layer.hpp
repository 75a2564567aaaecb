#pragma once
/// A layer's attention with one rope key for all heads and one latent, in DeepSeek's terms.

#include <vector>

#include "../rope/shared_key.hpp"
#include "mha2mla/factorize.hpp"

namespace mha2mla {

/// The score of head h is (rotated q_rope_h · rotated k_rope + q_hᵀ · up_k_h · latent) / √head_dim, and the output is
/// Σ_h o_h · up_v_h · Σ softmax · latent + o_bias, where q = x·qᵀ + q_bias, q_rope and k_rope likewise, latent =
/// x·downᵀ.
struct SharedKeyLayer {
    std::int64_t heads = 0, head_dim = 0;
    std::vector<double> frequencies;  // of each slot of the rope key, radians per token; [rope_dim/2]
    Matrix q;                         // the original's, [heads * head_dim, hidden]
    /// Rows of a head: the slots' real parts, then their imaginary parts, so that slot j is rows (j, j + rope_dim/2).
    Matrix q_rope;                                    // [heads * rope_dim, hidden]
    Matrix k_rope;                                    // [rope_dim, hidden]
    Matrix down;                                      // [kv_rank, hidden]
    Matrix up_k;                                      // [heads * head_dim, kv_rank]
    Matrix up_v;                                      // [heads * head_dim, kv_rank], the same for the heads of a group
    Matrix o;                                         // [hidden, heads * head_dim]
    Vector q_bias, q_rope_bias, k_rope_bias, o_bias;  // empty where there is none

    [[nodiscard]] std::int64_t rope_dim() const { return k_rope.rows(); }
    [[nodiscard]] std::int64_t kv_rank() const { return down.rows(); }
};

/// How errors of unrotated keys count.
enum class KeyWeighting : std::uint8_t {
    rms,     ///< each component's by the root mean square of the queries that it meets
    moment,  ///< by the second moment of these queries: E (q·e)² for an error e
};

/// The second moment of x − E x: a constant in an unrotated key changes no softmax.
[[nodiscard]] MatrixD centred_moment(const AttentionInputStats& stats);

/// A layer whose rope key is chosen, ready to be factorised at several ranks and balances.
class SharedKeyFactorizer {
public:
    /// @param whitening by centred_moment(); all but `map` outlive this. @throws Error{numeric}
    SharedKeyFactorizer(const OriginalAttention& layer, const SharedKeyMap& map, const AttentionInputStats& stats,
                        const QueryKeyMoments& moments, const Whitening& whitening, KeyWeighting weighting);

    struct Options {
        std::int64_t kv_rank = 0;
        /// Errors count as if unrotated keys had this many times the root mean square of the values on the text.
        double balance = 1;
        /// Whether the output bias gets the mean of what values lose.
        bool mean_value_bias = true;
        SvdOptions svd = {};
    };
    struct Result {
        SharedKeyLayer layer;
        double total_energy = 0, retained_energy = 0;  // of the weighted matrix
    };
    /// Rows of the map for queries and the rope key, and the truncated SVD of unrotated keys and values with their
    /// errors weighted: keys by the queries that they meet, values by W_oᵀW_o over their group, both by the centred
    /// inputs. All singular values go into the up projections, so that on the text every channel of the latent has unit
    /// variance.
    ///
    /// The key bias vanishes on unrotated components, because it adds the same to all scores of a query, and stays on
    /// the rope key; the value bias goes through W_o into o_bias.
    /// @throws Error{usage} naming the largest possible rank, Error{numeric}.
    [[nodiscard]] Result factorize(const Options& options) const;

private:
    /// The rows of the up projections as the layer has them, from those for weighted rows.
    void place_up(const Matrix& up, double key_weight, SharedKeyLayer& to) const;

    const OriginalAttention& original_;
    const AttentionInputStats& stats_;
    const Whitening& whitening_;
    SharedKeyLayer layer_;                // what does not depend on the factors
    std::vector<MatrixD> query_maps_;     // of unrotated components, by head, [nope_rows, head_dim]
    MatrixD key_factor_;                  // L with L·Lᵀ the weighting of keys, [nope_rows, nope_rows]
    std::vector<MatrixD> value_factors_;  // the same of values, by KV head
    Matrix keys_, values_;                // weighted, [nope_rows, hidden], [kv_heads * head_dim, hidden]
};

}  // namespace mha2mla
