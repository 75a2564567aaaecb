#pragma once
/// What of a command line of `convert` goes together. Settings of the library are the options without their dashes.

#include <filesystem>
#include <functional>

#include "conversion.hpp"

namespace mha2mla::tool {

/// @throws Error{usage} for options that do not belong together or to the method.
void check_method(const ConvertFlags& flags);
/// The plan that the options ask for: decide() of the library, whose errors here name options.
[[nodiscard]] ConversionPlan plan_of(const ConvertFlags& flags, const ModelConfig& config,
                                     std::optional<Dtype> source = std::nullopt);

/// Runs `body`, whose errors name settings, such that they name options: "kv-rank" -> "--kv-rank".
/// @param file with which a message may begin; its name is left as it is. May be empty.
void with_option_names(const std::filesystem::path& file, const std::function<void()>& body);

/// The options that name a stage: "--rope, --svd, ...".
[[nodiscard]] std::string stage_options();
/// Adds to the help of each option of convert which stage, method or text it needs.
void document_conversion_rules(CLI::App& command);

}  // namespace mha2mla::tool
