#pragma once
#include <cstdint>

namespace mha2mla {

/// A row of the embedding matrix.
using TokenId = std::int32_t;

}  // namespace mha2mla
