#include <array>

#include "factorizations.hpp"

namespace mha2mla {
namespace {

using Function = KvFactors (*)(const Matrix&, std::int64_t, const LatentWidths&, const SvdOptions&,
                               const ErrorWeighting&);

/// In the order of kFactorizations.
constexpr std::array<Function, kFactorizations.size()> kFunctions = {
    factorize_joint, factorize_whitened, factorize_apart, factorize_apart, factorize_apart, factorize_apart,
};

}  // namespace

KvFactors factorize(Factorization factorization, const Matrix& kv, std::int64_t nope_rows, const LatentWidths& widths,
                    const SvdOptions& options, const ErrorWeighting& weighting) {
    return kFunctions.at(static_cast<std::size_t>(factorization))(kv, nope_rows, widths, options, weighting);
}

}  // namespace mha2mla
