#pragma once
#include <string>
#include <vector>

#include "attention_target.hpp"
#include "mha2mla/factorize.hpp"

namespace mha2mla {

/// Weights of keys against values that are tried, see KvBalance.
struct BalanceSearch {
    std::vector<double> factors;  // of KvBalance::factor
    bool unweighted = false;      // and the one with which errors of keys and values count alike
};
/// What a KvBalance asks for.
[[nodiscard]] BalanceSearch balance_search(const KvBalance& balance);

struct FactoredLayer {
    KvFactors factors;
    double balance = 0;  // KvBalance::factor that was used
    double error = 0;    // output_error() with these factors; 0 if it was not measured
};

/// The error of an attention's output, which decides between balances.
struct OutputTarget {
    const AttentionTarget& target;
    OutputMeasure measure;
};

struct FactorRequest {
    Factorization factorization = Factorization::whitened;  // or weighted
    LatentWidths widths;
    SvdOptions svd;
    BalanceSearch search;
};

/// Factorises the NoPE keys and the values of a layer with every balance of the search, and returns the factors with
/// which the attention's output is closest to `output`; of equal ones the first.
/// @param layer all but the factors. @param name of the layer, for messages.
/// @param kv as for factorize().
/// @param weighting of errors; its key_weight is set by the search.
/// @param output null: nothing is measured, and the first balance is used.
/// @throws Error{numeric} if no output is finite.
[[nodiscard]] FactoredLayer factor_layer(LatentLayer layer, const std::string& name, const Matrix& kv,
                                         const FactorRequest& request, ErrorWeighting weighting,
                                         const OutputTarget* output);

}  // namespace mha2mla
