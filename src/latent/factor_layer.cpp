#include "factor_layer.hpp"

#include <cmath>
#include <limits>

#include "build_layer.hpp"
#include "mha2mla/error.hpp"

namespace mha2mla {

BalanceSearch balance_search(const KvBalance& balance) {
    switch (balance.how) {
        case KvBalance::How::automatic:
            return {{0.25, 0.5, 1.0, 2.0, 4.0}, true};
        case KvBalance::How::none:
            return {{}, true};
        case KvBalance::How::factor:
            break;
    }
    return {{balance.factor}, false};
}

FactoredLayer factor_layer(LatentLayer layer, const std::string& name, const Matrix& kv, const FactorRequest& request,
                           ErrorWeighting weighting, const OutputTarget* output) {
    const std::int64_t nope_rows = kv.rows() - layer.shape.value_rows();
    weighting.key_weight = 1;
    const double equal = equal_energy_weight(weigh_errors(kv, nope_rows, weighting), nope_rows);
    const auto with = [&](double balance) {
        weighting.key_weight = balance * equal;
        return FactoredLayer{factorize(request.factorization, kv, nope_rows, request.widths, request.svd, weighting),
                             balance, 0};
    };
    std::vector<double> balances = request.search.factors;
    if (request.search.unweighted) balances.push_back(1 / equal);
    if (output == nullptr) return with(balances.front());
    FactoredLayer best;
    best.error = std::numeric_limits<double>::infinity();
    for (const double balance : balances) {
        FactoredLayer candidate = with(balance);
        set_factors(candidate.factors, layer);
        candidate.error = output_error(layer, output->target, output->measure);
        if (candidate.error < best.error) best = std::move(candidate);
    }
    if (!std::isfinite(best.error)) {
        throw Error(ErrorCode::numeric, name + ": the attention's output is not finite");
    }
    return best;
}

}  // namespace mha2mla
