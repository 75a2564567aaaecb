#pragma once
/// A GGUF file where a command takes a checkpoint directory.

#include <filesystem>
#include <optional>

#include "context.hpp"
#include "conversion.hpp"
#include "mha2mla/gguf_import.hpp"

namespace mha2mla::tool {

/// Whether this is a file whose name or first bytes say GGUF.
[[nodiscard]] bool is_gguf(const std::filesystem::path& path);

/// A GGUF file as a checkpoint directory beside what is made of it, removed at the end.
class ImportedSource {
public:
    /// @param flags whose source is a checkpoint directory, which stays what it is, or a GGUF file.
    /// @throws Error, as import_gguf, and before that what can be told of the other flags.
    ImportedSource(const ConvertFlags& flags, Context& context);

    /// The checkpoint directory. It has the name of the file, so that records say where a conversion comes from.
    [[nodiscard]] const std::filesystem::path& directory() const { return directory_; }

private:
    std::filesystem::path directory_;
    std::optional<ImportedCheckpoint> imported_;
};

}  // namespace mha2mla::tool
