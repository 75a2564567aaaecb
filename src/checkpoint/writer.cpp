#include <sys/statvfs.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <nlohmann/json.hpp>

#include "mha2mla/checkpoint.hpp"
#include "mha2mla/error.hpp"
#include "output_file.hpp"

namespace mha2mla {
namespace fs = std::filesystem;
namespace {

struct Slot {
    TensorSpec spec;
    std::size_t shard = 0;
    std::uint64_t begin = 0;  // in the shard's data section
    std::uint64_t bytes = 0;
    std::uint64_t written = 0;
};

/// Header of one file, padded with spaces so that the data starts at a multiple of 8, as the format advises.
std::string header_text(std::span<const Slot* const> slots, const std::map<std::string, std::string>& metadata) {
    nlohmann::ordered_json::object_t::Container header;  // built as a list: names are known to be unique
    header.emplace_back("__metadata__", metadata);
    for (const Slot* slot : slots) {
        nlohmann::ordered_json entry;
        entry["dtype"] = dtype_name(slot->spec.dtype);
        entry["shape"] = slot->spec.shape;
        entry["data_offsets"] = {slot->begin, slot->begin + slot->bytes};
        header.emplace_back(slot->spec.name, std::move(entry));
    }
    std::string text = "{";
    for (const auto& [name, value] : header) {
        if (text.size() > 1) text += ',';
        text += nlohmann::json(name).dump() + ':' + value.dump();
    }
    text += '}';
    text.append((8 - text.size() % 8) % 8, ' ');
    const std::uint64_t length = text.size();
    std::string prefix(8, '\0');
    std::memcpy(prefix.data(), &length, 8);
    return prefix + text;
}

/// Gives the slots of one file their ranges. Wide elements come first, so that every tensor is aligned.
std::vector<Slot*> lay_out(std::span<Slot> slots) {
    std::vector<Slot*> order;
    for (auto& slot : slots) order.push_back(&slot);
    std::stable_sort(order.begin(), order.end(), [](const Slot* a, const Slot* b) {
        return dtype_bits(a->spec.dtype) > dtype_bits(b->spec.dtype);
    });
    std::uint64_t position = 0;
    for (Slot* slot : order) {
        slot->begin = position;
        position += slot->bytes;
    }
    return order;
}

std::vector<Slot> make_slots(std::vector<TensorSpec> tensors) {
    std::vector<Slot> slots;
    for (auto& spec : tensors) {
        const std::uint64_t bytes = byte_count(spec.dtype, spec.shape);
        slots.push_back({std::move(spec), 0, 0, bytes, 0});
    }
    return slots;
}

/// A mistake of the calling code, not of its input.
[[noreturn]] void misuse(const char* what, std::string_view tensor) {
    throw Error(ErrorCode::usage, "CheckpointWriter: tensor '" + std::string(tensor) + "' was " + what);
}

void check_free_space(const fs::path& directory, std::uint64_t needed) {
    struct statvfs status {};
    if (::statvfs(directory.c_str(), &status) != 0) return;  // writing itself will tell
    const std::uint64_t free_bytes = std::uint64_t{status.f_bavail} * status.f_frsize;
    if (free_bytes < needed) {
        throw Error(ErrorCode::io, directory.string() + ": the output needs " + std::to_string(needed) +
                                       " bytes, but only " + std::to_string(free_bytes) +
                                       " are free; free some space or choose another place");
    }
}

bool is_weight_file(const std::string& name) {
    return name.starts_with("model") && (name.ends_with(".safetensors") || name == "model.safetensors.index.json");
}

}  // namespace

struct CheckpointWriter::Impl {
    fs::path directory;
    bool created_directory = false;
    bool committed = false;
    std::vector<Slot> slots;
    std::map<std::string, std::size_t, std::less<>> by_name;
    std::vector<std::string> shard_names;
    std::vector<std::uint64_t> data_start;
    std::vector<OutputFile> shards;
    std::vector<std::pair<std::string, OutputFile>> files;
    std::uint64_t total_bytes = 0;
    std::mutex mutex;

    void assign_shards(std::uint64_t max_shard_bytes) {
        std::size_t shard = 0;
        std::uint64_t filled = 0;
        std::uint64_t tensor_bytes = 0;
        for (auto& slot : slots) {
            if (filled > 0 && slot.bytes > 0 && filled + slot.bytes > max_shard_bytes) {
                ++shard;
                filled = 0;
            }
            slot.shard = shard;
            filled += slot.bytes;
            tensor_bytes += slot.bytes;
        }
        const std::size_t count = shard + 1;
        for (std::size_t i = 0; i < count; ++i) {
            char name[64];
            (void)std::snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", i + 1, count);
            shard_names.emplace_back(count == 1 ? "model.safetensors" : name);
        }
        if (count == 1) return;
        nlohmann::json index;
        index["metadata"]["total_size"] = tensor_bytes;
        for (const auto& slot : slots) index["weight_map"][slot.spec.name] = shard_names[slot.shard];
        add("model.safetensors.index.json", index.dump(2) + "\n");
    }

    void write_headers() {
        std::vector<std::string> headers;
        auto first = slots.begin();
        for (std::size_t shard = 0; shard < shard_names.size(); ++shard) {
            const auto last = std::find_if(first, slots.end(), [&](const Slot& s) { return s.shard != shard; });
            const auto order = lay_out({first, last});
            headers.push_back(header_text(std::vector<const Slot*>(order.begin(), order.end()), {{"format", "pt"}}));
            total_bytes += headers.back().size();
            for (const Slot* slot : order) total_bytes += slot->bytes;
            first = last;
        }
        check_free_space(directory, total_bytes);
        for (std::size_t shard = 0; shard < shard_names.size(); ++shard) {
            shards.emplace_back(directory / shard_names[shard]);
            data_start.push_back(headers[shard].size());
            shards.back().write_at(0, std::as_bytes(std::span(headers[shard])));
        }
    }

    /// The slot that `bytes` more are going to be written to.
    const Slot& claim(std::string_view name, std::uint64_t offset, std::uint64_t bytes) {
        const std::lock_guard lock(mutex);
        const auto it = by_name.find(name);
        if (it == by_name.end()) misuse("not announced", name);
        Slot& slot = slots[it->second];
        if (offset > slot.bytes || bytes > slot.bytes - offset || bytes > slot.bytes - slot.written) {
            misuse("written twice or with another size", name);
        }
        slot.written += bytes;
        return slot;
    }

    void add(const std::string& name, std::string_view content) {
        files.emplace_back(name, OutputFile(directory / name));
        files.back().second.write_at(0, std::as_bytes(std::span(content)));
    }

    /// With overwrite an older checkpoint may lie here; none of its weights may stay beside the new ones.
    void remove_stale_weights() const {
        std::error_code ignored;
        fs::remove(directory / "config.json", ignored);
        std::vector<fs::path> stale;
        for (const auto& entry : fs::directory_iterator(directory)) {
            if (is_weight_file(entry.path().filename().string())) stale.push_back(entry.path());
        }
        for (const auto& path : stale) fs::remove(path, ignored);
    }
};

void check_output_directory(const fs::path& directory, bool overwrite) {
    std::error_code error;
    if (!fs::exists(directory, error)) return;
    if (!fs::is_directory(directory, error)) {
        throw Error(ErrorCode::io, directory.string() + ": exists and is not a directory; choose another place");
    }
    if (!overwrite && !fs::is_empty(directory, error)) {
        throw Error(ErrorCode::io,
                    directory.string() + ": exists and is not empty; choose another place or try --overwrite");
    }
}

CheckpointWriter::CheckpointWriter(const fs::path& directory, std::vector<TensorSpec> tensors, const Options& options)
    : impl_(std::make_unique<Impl>()) {
    check_output_directory(directory, options.overwrite);
    std::error_code error;
    impl_->created_directory = fs::create_directories(directory, error);
    if (error) throw Error(ErrorCode::io, directory.string() + ": cannot create directory: " + error.message());
    impl_->directory = directory;
    try {
        impl_->slots = make_slots(std::move(tensors));
        for (std::size_t i = 0; i < impl_->slots.size(); ++i) {
            if (!impl_->by_name.emplace(impl_->slots[i].spec.name, i).second) {
                misuse("announced twice", impl_->slots[i].spec.name);
            }
        }
        impl_->assign_shards(options.max_shard_bytes);
        impl_->write_headers();
    } catch (...) {
        impl_->shards.clear();
        impl_->files.clear();
        if (impl_->created_directory) fs::remove(directory, error);
        throw;
    }
}

CheckpointWriter::~CheckpointWriter() {
    if (impl_->committed) return;
    impl_->shards.clear();
    impl_->files.clear();
    std::error_code ignored;
    if (impl_->created_directory) fs::remove(impl_->directory, ignored);
}

void CheckpointWriter::write(std::string_view name, std::span<const std::byte> data) { write_part(name, 0, data); }

void CheckpointWriter::write_part(std::string_view name, std::uint64_t offset, std::span<const std::byte> data) {
    const Slot& slot = impl_->claim(name, offset, data.size());
    impl_->shards[slot.shard].write_at(impl_->data_start[slot.shard] + slot.begin + offset, data);
}

void CheckpointWriter::copy(std::string_view name, const TensorView& source, const SafetensorsFile& file) {
    const Slot& slot = impl_->claim(name, 0, source.data.size());
    impl_->shards[slot.shard].copy_at(impl_->data_start[slot.shard] + slot.begin, file.file().descriptor(),
                                      source.file_offset, source.data);
}

void CheckpointWriter::add_file(const std::string& file_name, std::string_view content) {
    impl_->add(file_name, content);
}

void CheckpointWriter::copy_file(const std::string& file_name, const fs::path& source) {
    const MappedFile mapped(source);
    impl_->files.emplace_back(file_name, OutputFile(impl_->directory / file_name));
    impl_->files.back().second.copy_at(0, mapped.descriptor(), 0, mapped.bytes());
}

void CheckpointWriter::commit() {
    for (const auto& slot : impl_->slots) {
        if (slot.written != slot.bytes) misuse("never written as a whole", slot.spec.name);
    }
    for (auto& shard : impl_->shards) shard.flush();
    for (auto& [name, file] : impl_->files) file.flush();
    impl_->remove_stale_weights();
    for (auto& shard : impl_->shards) shard.publish();
    for (const bool config : {false, true}) {
        for (auto& [name, file] : impl_->files) {
            if ((name == "config.json") == config) file.publish();
        }
        flush_directory(impl_->directory);
    }
    impl_->committed = true;
}

std::uint64_t CheckpointWriter::total_bytes() const { return impl_->total_bytes; }

void write_safetensors(const fs::path& path, const std::vector<TensorSpec>& tensors,
                       const std::vector<std::vector<std::byte>>& data,
                       const std::map<std::string, std::string>& metadata) {
    auto slots = make_slots(tensors);
    const auto order = lay_out(slots);
    const std::string header = header_text(std::vector<const Slot*>(order.begin(), order.end()), metadata);
    OutputFile file(path);
    file.write_at(0, std::as_bytes(std::span(header)));
    for (std::size_t i = 0; i < slots.size(); ++i) file.write_at(header.size() + slots[i].begin, data.at(i));
    file.publish();
}

}  // namespace mha2mla
