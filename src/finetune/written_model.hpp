#pragma once
#include <filesystem>
#include <optional>
#include <string>

#include "mha2mla/finetune.hpp"

namespace mha2mla {

struct WrittenRun {
    const std::filesystem::path& destination;
    std::optional<Dtype> dtype;
    const nlohmann::ordered_json& record;
    const std::string& log;
};

/// Writes the tensors of `source`, those that `trained` holds with its values, and the files beside them.
/// @return bytes of the weights. @throws Error{io}, Error{numeric} for a value that the dtype does not hold.
std::uint64_t write_trained(const Model& trained, const Model& source, const WrittenRun& run);

}  // namespace mha2mla
