#pragma once
#include <set>
#include <string>
#include <vector>

#include "mha2mla/model.hpp"

namespace mha2mla {

/// Names of what the checkpoint holds beside the tensors in `used` and would change the result if it were not left out:
/// tensors, and adapters in files of their own. Ascending.
[[nodiscard]] std::vector<std::string> find_unused(const Model& model, const std::set<const TensorView*>& used);

/// Why there is no place for one of Model::unused.
[[nodiscard]] std::string why_unused(const Model& model, const std::string& name);
/// One line about all of them.
[[nodiscard]] std::string describe_unused(const Model& model);

}  // namespace mha2mla
