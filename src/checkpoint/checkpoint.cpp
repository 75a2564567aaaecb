#include "mha2mla/checkpoint.hpp"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "../support/json_file.hpp"
#include "mha2mla/error.hpp"

namespace mha2mla {
namespace fs = std::filesystem;

namespace {

bool is_plain_file_name(const std::string& name) {
    return !name.empty() && name != "." && name != ".." && name.find('/') == std::string::npos &&
           name.find('\\') == std::string::npos && name.find('\0') == std::string::npos;
}

/// The index file's map from tensor names to shards.
std::map<std::string, std::string> read_index(const fs::path& path) {
    const auto index = read_json_file(path);
    const auto map = index.is_object() ? index.find("weight_map") : index.end();
    if (!index.is_object() || map == index.end() || !map->is_object() || map->empty()) {
        throw Error(ErrorCode::format, path.string() + ": 'weight_map' must be a non-empty object of tensor names");
    }
    std::map<std::string, std::string> shards;
    for (const auto& [tensor, shard] : map->items()) {
        if (!shard.is_string() || !is_plain_file_name(shard.get<std::string>())) {
            throw Error(ErrorCode::format, path.string() + ": tensor '" + tensor + "' is mapped to " + shard.dump() +
                                               ", which is not a plain file name");
        }
        shards.emplace(tensor, shard.get<std::string>());
    }
    return shards;
}

/// Other forms of weights, by the beginning and the end of a file's name, and what to do with them.
struct OtherWeights {
    std::string_view start, end, next_step;
};
constexpr std::array<OtherWeights, 7> kOtherWeights = {{
    {"adapter_model", "", "is an adapter alone: merge it into its base model with peft's merge_and_unload"},
    {"consolidated", "", "is Meta's original format: convert it with transformers' convert_llama_weights_to_hf.py"},
    {"model-", ".safetensors", "is a shard without its index: download model.safetensors.index.json too"},
    {"", ".safetensors", "has another name: rename it to model.safetensors if it is the whole model"},
    {"", ".gguf", "is GGUF: make a checkpoint directory of it with 'mha2mla import'"},
    {"pytorch_model", "", "is a pickle: save the model again with safe_serialization=True"},
    {"", ".pth", "is a pickle: save the model with transformers' save_pretrained"},
}};

/// "; NAME is ...: ..." for the first of these that the directory holds.
std::string other_weights(const fs::path& directory) {
    std::vector<std::string> names;
    std::error_code ignored;
    for (fs::directory_iterator it(directory, ignored), end; it != end; it.increment(ignored)) {
        names.push_back(it->path().filename().string());
    }
    std::sort(names.begin(), names.end());
    for (const OtherWeights& row : kOtherWeights) {
        for (const std::string& name : names) {
            if (name.starts_with(row.start) && name.ends_with(row.end)) {
                return "; " + name + " " + std::string(row.next_step);
            }
        }
    }
    return {};
}

/// As fs::exists(), but a directory that may not be entered is not one without the file.
bool is_there(const fs::path& path) {
    std::error_code error;
    const bool there = fs::exists(path, error);
    if (error) throw Error(ErrorCode::io, path.parent_path().string() + ": cannot look into it: " + error.message());
    return there;
}

}  // namespace

Checkpoint Checkpoint::open(const fs::path& directory) {
    std::error_code ignored;
    if (fs::is_regular_file(directory, ignored) && directory.extension() == ".gguf") {
        throw Error(ErrorCode::unsupported,
                    directory.string() + " is GGUF: make a checkpoint directory of it with 'mha2mla import'");
    }
    if (!fs::is_directory(directory, ignored)) {
        throw Error(ErrorCode::io, directory.string() +
                                       ": no such directory; give a Hugging Face checkpoint directory with config.json "
                                       "and model.safetensors");
    }
    Checkpoint checkpoint;
    checkpoint.directory_ = directory;
    std::map<std::string, std::string> weight_map;
    const fs::path single = directory / "model.safetensors";
    const fs::path index = directory / "model.safetensors.index.json";
    if (is_there(single)) {
        checkpoint.files_.emplace_back(single);
    } else if (is_there(index)) {
        weight_map = read_index(index);
        std::map<std::string, bool> shards;  // sorted and unique
        for (const auto& [tensor, shard] : weight_map) shards.emplace(shard, true);
        for (const auto& [shard, unused] : shards) {
            if (!fs::exists(directory / shard, ignored)) {
                throw Error(ErrorCode::io, (directory / shard).string() + ": shard named in " +
                                               index.filename().string() + " is missing; download it");
            }
            checkpoint.files_.emplace_back(directory / shard);
        }
    } else {
        throw Error(ErrorCode::io, directory.string() +
                                       ": holds neither model.safetensors nor model.safetensors.index.json" +
                                       other_weights(directory));
    }
    for (std::size_t f = 0; f < checkpoint.files_.size(); ++f) {
        const auto& tensors = checkpoint.files_[f].tensors();
        for (std::size_t t = 0; t < tensors.size(); ++t) {
            const auto [it, inserted] = checkpoint.by_name_.emplace(tensors[t].name, std::pair{f, t});
            if (!inserted) {
                throw Error(ErrorCode::format, directory.string() + ": tensor '" + tensors[t].name + "' is in both " +
                                                   checkpoint.files_[it->second.first].path().filename().string() +
                                                   " and " + tensors[t].file);
            }
        }
    }
    for (const auto& [tensor, shard] : weight_map) {
        // One that no shard holds may be left over, such as the head of tied embeddings; who needs it will miss it.
        const TensorView* view = checkpoint.find(tensor);
        if (view != nullptr && view->file != shard) {
            throw Error(ErrorCode::format,
                        index.string() + ": tensor '" + tensor + "' is not in " + shard +
                            ", although the index says so; the shards belong to different checkpoints");
        }
    }
    return checkpoint;
}

const TensorView* Checkpoint::find(std::string_view name) const {
    if (const auto it = replaced_.find(name); it != replaced_.end()) return &it->second;
    const auto it = by_name_.find(name);
    return it == by_name_.end() ? nullptr : &files_[it->second.first].tensors()[it->second.second];
}

const SafetensorsFile& Checkpoint::file_of(const TensorView& tensor) const {
    return files_[by_name_.find(tensor.name)->second.first];
}

void Checkpoint::will_need(const TensorView& tensor) const {
    if (!replaced_.contains(tensor.name)) file_of(tensor).file().will_need(tensor.data);
}
void Checkpoint::done_with(const TensorView& tensor) const {
    if (!replaced_.contains(tensor.name)) file_of(tensor).file().done_with(tensor.data);
}

void Checkpoint::replace(std::vector<TensorView> tensors) {
    for (TensorView& tensor : tensors) {
        std::string name = tensor.name;
        replaced_.insert_or_assign(std::move(name), std::move(tensor));
    }
}

}  // namespace mha2mla
