#pragma once
#include <cstdint>

namespace mha2mla {

/// A token: the index of its row in the embedding matrix.
using TokenId = std::int32_t;

}  // namespace mha2mla
