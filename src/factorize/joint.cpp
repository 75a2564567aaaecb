#include "factorizations.hpp"

namespace mha2mla {

/// Joint SVD (MHA2MLA, section 3.2): [k_nope; v] ≈ [up_k; up_v] · down_kv, one latent for keys and values.
KvFactors factorize_joint(const Matrix& kv, std::int64_t nope_rows, const LatentWidths& widths,
                          const SvdOptions& options, const ErrorWeighting&) {
    LowRank svd = truncated_svd(kv, widths.key, options);
    KvFactors factors;
    factors.down_k = std::move(svd.down);
    factors.up_k = svd.up.topRows(nope_rows);
    factors.up_v = svd.up.bottomRows(kv.rows() - nope_rows);
    factors.total_energy = svd.total_energy;
    factors.retained_energy = svd.retained_energy;
    return factors;
}

}  // namespace mha2mla
