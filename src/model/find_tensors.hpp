#pragma once
#include <string>
#include <vector>

#include "mha2mla/model.hpp"

namespace mha2mla {

/// Model::open() that goes on after a tensor that is missing or wrong: each is described in `problems`, and null in the
/// result, which is of use only where there were none.
[[nodiscard]] Model find_tensors(ModelConfig config, Checkpoint checkpoint, std::vector<std::string>& problems);

}  // namespace mha2mla
