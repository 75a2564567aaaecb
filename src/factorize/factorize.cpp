#include <array>

#include "factorizations.hpp"

namespace mha2mla {
namespace {

using Function = KvFactors (*)(const Matrix&, const Matrix&, const LatentWidths&, const SvdOptions&);

/// In the order of kFactorizations.
constexpr std::array<Function, kFactorizations.size()> kFunctions = {
    factorize_joint, factorize_apart, factorize_apart, factorize_apart, factorize_apart,
};

}  // namespace

KvFactors factorize(Factorization factorization, const Matrix& k_nope, const Matrix& v, const LatentWidths& widths,
                    const SvdOptions& options) {
    return kFunctions.at(static_cast<std::size_t>(factorization))(k_nope, v, widths, options);
}

}  // namespace mha2mla
