#pragma once
/// Which of the methods a command line asks for, and what of it goes together.

#include <span>

#include "conversion.hpp"
#include "option_rules.hpp"

namespace mha2mla::tool {

/// Default share of the KV cache to remove.
inline constexpr double kDefaultReduction = 0.6875;

/// @throws Error{usage} for options that do not belong together or to the method.
void check_method(const ConvertFlags& flags);
/// Which option belongs to which stage, method or text.
[[nodiscard]] std::span<const OptionRule<ConvertFlags>> conversion_rules();
/// The options that name a stage: "--rope, --svd, ...".
[[nodiscard]] std::string stage_options();

/// The part of check_method() that `plan` needs too: all but the text.
void check_choices(const ConvertFlags& flags);

/// What `aligned` is asked for.
[[nodiscard]] AlignRequest align_request(const ConvertFlags& flags, const ModelConfig& config);

/// d_r and d_kv of a conversion that is not aligned: as named, the paper's, or what --kv-reduction leaves.
struct Budget {
    std::int64_t rope_dim = 0, kv_rank = 0;
};
[[nodiscard]] Budget budget_of(const ConvertFlags& flags, const ModelConfig& config);

}  // namespace mha2mla::tool
