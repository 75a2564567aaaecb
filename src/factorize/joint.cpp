#include "factorizations.hpp"

namespace mha2mla {

/// Joint SVD (MHA2MLA, section 3.2): [k_nope; v] ≈ [up_k; up_v] · down_kv, one latent for keys and values.
KvFactors factorize_joint(const Matrix& k_nope, const Matrix& v, const LatentWidths& widths,
                          const SvdOptions& options) {
    Matrix joint(k_nope.rows() + v.rows(), v.cols());
    joint << k_nope, v;
    LowRank svd = truncated_svd(joint, widths.key, options);
    KvFactors factors;
    factors.down_k = std::move(svd.down);
    factors.up_k = svd.up.topRows(k_nope.rows());
    factors.up_v = svd.up.bottomRows(v.rows());
    factors.total_energy = svd.total_energy;
    factors.retained_energy = svd.retained_energy;
    return factors;
}

}  // namespace mha2mla
