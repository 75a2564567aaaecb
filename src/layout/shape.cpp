#include "mha2mla/latent.hpp"

namespace mha2mla {

LatentWidths latent_widths(Factorization factorization, std::int64_t num_kv_heads, std::int64_t head_dim,
                           std::int64_t rope_dim, std::int64_t kv_rank) {
    const std::int64_t rank = num_kv_heads * kv_rank;
    const std::int64_t nope_keys = num_kv_heads * (head_dim - rope_dim);
    const std::int64_t values = num_kv_heads * head_dim;
    switch (factorization) {
        case Factorization::joint:
        case Factorization::whitened:
        case Factorization::weighted:
            return {rank, rank, rank};
        case Factorization::split:
            return {rank / 2, rank / 2, rank};
        case Factorization::key:
            return {rank, 0, rank + values};
        case Factorization::value:
            return {0, rank, nope_keys + rank};
        case Factorization::none:
            break;
    }
    return {0, 0, nope_keys + values};
}

}  // namespace mha2mla
