#pragma once
/// What the norm of a latent does to it.

#include <optional>

#include "mha2mla/model.hpp"

namespace mha2mla {

/// Whether a conversion made the latent of this norm vanish beside eps, so that the norm multiplies by the constant
/// weight / √eps. Its weights say so: all are kTinyLatentWeight.
[[nodiscard]] bool has_tiny_latent(const NormView& norm);

}  // namespace mha2mla
