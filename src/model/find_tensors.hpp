#pragma once
#include <string>
#include <vector>

#include "mha2mla/model.hpp"

namespace mha2mla {

/// Like Model::open(), but continues after a tensor that is missing or wrong: it is described in `problems` and null in
/// the result, which is complete only if there are no problems.
[[nodiscard]] Model find_tensors(ModelConfig config, Checkpoint checkpoint, std::vector<std::string>& problems);

}  // namespace mha2mla
