#pragma once
#include "mha2mla/factorize.hpp"

namespace mha2mla {

// Each is documented at its definition.
KvFactors factorize_joint(const Matrix& kv, std::int64_t nope_rows, const LatentWidths& widths,
                          const SvdOptions& options, const ErrorWeighting& weighting);
KvFactors factorize_whitened(const Matrix& kv, std::int64_t nope_rows, const LatentWidths& widths,
                             const SvdOptions& options, const ErrorWeighting& weighting);
KvFactors factorize_weighted(const Matrix& kv, std::int64_t nope_rows, const LatentWidths& widths,
                             const SvdOptions& options, const ErrorWeighting& weighting);
KvFactors factorize_apart(const Matrix& kv, std::int64_t nope_rows, const LatentWidths& widths,
                          const SvdOptions& options, const ErrorWeighting& weighting);

}  // namespace mha2mla
