#pragma once
/// Stage 1: a Hugging Face checkpoint directory as memory-mapped, validated, zero-copy tensor views.
///
/// Thread-safety: everything here is immutable once it is open and may be read from several threads.

#include <cstddef>
#include <filesystem>
#include <functional>
#include <map>
#include <string_view>
#include <utility>
#include <vector>

#include "mha2mla/safetensors.hpp"

namespace mha2mla {

/// The tensors of a checkpoint directory: `model.safetensors`, or the shards of `model.safetensors.index.json`.
class Checkpoint {
public:
    /// @throws Error{io} if the directory or a shard is missing, Error{format} if a file violates its format.
    static Checkpoint open(const std::filesystem::path& directory);

    [[nodiscard]] const std::filesystem::path& directory() const { return directory_; }
    [[nodiscard]] const std::vector<SafetensorsFile>& files() const { return files_; }
    /// The tensor with this name, or nullptr.
    [[nodiscard]] const TensorView* find(std::string_view name) const;
    /// The file that holds `tensor`, which must belong to this checkpoint.
    [[nodiscard]] const SafetensorsFile& file_of(const TensorView& tensor) const;
    /// Hints about the memory of a tensor of this checkpoint; see MappedFile. Nothing for one that replace() put there.
    void will_need(const TensorView& tensor) const;
    void done_with(const TensorView& tensor) const;
    /// From now on find() returns these, which lie in the caller's memory, in place of the tensors of their names.
    void replace(std::vector<TensorView> tensors);

private:
    std::filesystem::path directory_;
    std::vector<SafetensorsFile> files_;
    std::map<std::string, std::pair<std::size_t, std::size_t>, std::less<>> by_name_;  // name -> (file, tensor)
    std::map<std::string, TensorView, std::less<>> replaced_;
};

}  // namespace mha2mla
