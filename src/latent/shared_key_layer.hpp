#pragma once
/// A layer's attention with one rotated key for all heads and one latent.

#include <vector>

#include "mha2mla/factorize.hpp"
#include "shared_key_frame.hpp"

namespace mha2mla {

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
    SharedKeyFactorizer(const OriginalAttention& layer, const SharedKeyMap& map, const QueryKeyMoments& moments,
                        const Whitening& whitening, KeyWeighting weighting);

    struct Result {
        LatentWeights weights;                         // of the layout with one rotated key
        double total_energy = 0, retained_energy = 0;  // of the weighted matrix
    };
    /// The frame of the map, and the truncated SVD of unrotated keys and values with their errors weighted: keys by
    /// the queries that they meet, values by W_oᵀW_o over their group, both by the centred inputs. All singular values
    /// go into the up projections, so that on the text every channel of the latent has unit variance.
    /// @param balance errors count as if unrotated keys had this many times the root mean square of the values.
    /// @throws Error{usage} naming the largest possible rank, Error{numeric}.
    [[nodiscard]] Result factorize(std::int64_t kv_rank, double balance) const;

private:
    const OriginalAttention& original_;
    const Whitening& whitening_;
    SharedKeyFrame frame_;
    MatrixD key_factor_;                  // L with L·Lᵀ the weighting of keys, [nope_rows, nope_rows]
    std::vector<MatrixD> value_factors_;  // the same of values, by KV head
    Matrix keys_, values_;                // weighted, [nope_rows, hidden], [kv_heads * head_dim, hidden]
};

}  // namespace mha2mla
