#pragma once
/// Which of the methods a command line asks for, and what of it goes together.

#include "conversion.hpp"

namespace mha2mla::tool {

/// Of the cache, that goes where nothing else is asked for.
inline constexpr double kDefaultReduction = 0.6875;

/// @throws Error{usage} for options that do not belong together or to the method.
void check_method(const ConvertFlags& flags, Context& context);

/// What `aligned` is asked for.
[[nodiscard]] AlignRequest align_request(const ConvertFlags& flags, const ModelConfig& config);

/// d_r and d_kv of a conversion that is not aligned: as named, the paper's, or what --kv-reduction leaves.
struct Budget {
    std::int64_t rope_dim = 0, kv_rank = 0;
};
[[nodiscard]] Budget budget_of(const ConvertFlags& flags, const ModelConfig& config);

}  // namespace mha2mla::tool
