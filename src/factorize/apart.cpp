#include "factorizations.hpp"

namespace mha2mla {
namespace {

/// Factorises keys or values; a width of 0 means that they are not factorised.
void factorize_one(const Eigen::Ref<const Matrix>& weight, std::int64_t width, const SvdOptions& options, Matrix& down,
                   Matrix& up, KvFactors& factors) {
    if (width == 0) {
        up = weight;
        return;
    }
    LowRank svd = truncated_svd(weight, width, options);
    down = std::move(svd.down);
    up = std::move(svd.up);
    factors.total_energy += svd.total_energy;
    factors.retained_energy += svd.retained_energy;
}

}  // namespace

/// Split SVD (MHA2MLA, section 3.2): keys and values are factorised separately, or not at all.
KvFactors factorize_apart(const Matrix& kv, std::int64_t nope_rows, const LatentWidths& widths,
                          const SvdOptions& options, const ErrorWeighting&) {
    KvFactors factors;
    factorize_one(kv.topRows(nope_rows), widths.key, options, factors.down_k, factors.up_k, factors);
    factorize_one(kv.bottomRows(kv.rows() - nope_rows), widths.value, options, factors.down_v, factors.up_v, factors);
    return factors;
}

}  // namespace mha2mla
