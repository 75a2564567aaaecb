#pragma once
/// A GGUF file as a Hugging Face checkpoint directory.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "mha2mla/observer.hpp"
#include "mha2mla/tensor.hpp"

namespace mha2mla {

struct GgufImportRequest {
    std::optional<Dtype> dtype;  // F32, F16 or BF16; absent: what the file's matrices have, F16 for quantised ones
    std::uint64_t max_shard_bytes = 5'000'000'000;
    bool overwrite = false;
};

struct GgufImportReport {
    std::string architecture;
    std::string vocabulary;  // for people
    Dtype dtype = Dtype::f32;
    std::int64_t tensors = 0;
    std::uint64_t bytes = 0;  // of all weight files
};

/// Writes config.json, weights, tokenizer.json, tokenizer_config.json and chat_template.jinja, one row of a tensor at a
/// time. Quantised weights become the floats that they stand for. A vocabulary that tokenizer.json cannot say, or whose
/// pre-tokenizer is not known here, is left out with a warning.
/// @throws Error{unsupported} naming the architecture, key or tensor that this version does not know;
///         Error{format} if keys and tensors disagree; Error{numeric} for weights that are not finite or that `dtype`
///         does not hold; Error{io}.
GgufImportReport import_gguf(const std::filesystem::path& file, const std::filesystem::path& directory,
                             const GgufImportRequest& request, Observer& observer);

/// A GGUF file as a checkpoint directory that is removed at the end.
class ImportedCheckpoint {
public:
    /// @param place a directory of no other use, in which the checkpoint gets the name of the file. What a killed
    /// process left there is replaced. @throws as import_gguf, Error{io} if another process uses it, or it holds
    /// anything else.
    ImportedCheckpoint(const std::filesystem::path& file, const std::filesystem::path& place,
                       std::optional<Dtype> dtype, Observer& observer);
    ~ImportedCheckpoint();
    ImportedCheckpoint(const ImportedCheckpoint&) = delete;
    ImportedCheckpoint& operator=(const ImportedCheckpoint&) = delete;
    ImportedCheckpoint(ImportedCheckpoint&&) = delete;
    ImportedCheckpoint& operator=(ImportedCheckpoint&&) = delete;

    [[nodiscard]] const std::filesystem::path& directory() const;

private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace mha2mla
