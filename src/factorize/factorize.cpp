#include <array>

#include "factorizations.hpp"

namespace mha2mla {
namespace {

using Function = KvFactors (*)(const Matrix&, std::int64_t, const LatentWidths&, const SvdOptions&,
                               const ErrorWeighting&);

struct FunctionRow {
    Factorization factorization;
    Function function;
};
constexpr std::array<FunctionRow, kFactorizations.size()> kFunctions = {{
    {Factorization::joint, factorize_joint},
    {Factorization::whitened, factorize_whitened},
    {Factorization::weighted, factorize_weighted},
    {Factorization::split, factorize_apart},
    {Factorization::key, factorize_apart},
    {Factorization::value, factorize_apart},
    {Factorization::none, factorize_apart},
}};
static_assert(in_order(kFunctions, &FunctionRow::factorization));

}  // namespace

KvFactors factorize(Factorization factorization, const Matrix& kv, std::int64_t nope_rows, const LatentWidths& widths,
                    const SvdOptions& options, const ErrorWeighting& weighting) {
    const FunctionRow& row = kFunctions.at(static_cast<std::size_t>(factorization));
    return row.function(kv, nope_rows, widths, options, weighting);
}

}  // namespace mha2mla
