#include "mha2mla/checkpoint_writer.hpp"

#include <sys/statvfs.h>

#include <algorithm>
#include <cstdio>
#include <mutex>
#include <nlohmann/json.hpp>
#include <set>

#include "../support/hash.hpp"
#include "../support/output_file.hpp"
#include "mha2mla/error.hpp"
#include "shard_layout.hpp"

namespace mha2mla {
namespace fs = std::filesystem;
namespace {

/// Reports a mistake of the calling code, not of its input.
[[noreturn]] void misuse(const char* what, std::string_view tensor) {
    throw Error(ErrorCode::usage, "CheckpointWriter: tensor '" + std::string(tensor) + "' was " + what);
}

void check_free_space(const fs::path& directory, std::uint64_t needed) {
    struct statvfs status {};
    if (::statvfs(directory.c_str(), &status) != 0) return;  // writing will report a full disk
    const std::uint64_t free_bytes = std::uint64_t{status.f_bavail} * status.f_frsize;
    if (free_bytes < needed) {
        throw Error(ErrorCode::io, directory.string() + ": the output needs " + std::to_string(needed) +
                                       " bytes, but only " + std::to_string(free_bytes) +
                                       " are free; free some space or choose another place");
    }
}

constexpr std::string_view kIncomplete = ".incomplete";

bool is_weight_file(std::string_view name) {
    return name.starts_with("model") && (name.ends_with(".safetensors") || name == "model.safetensors.index.json");
}

/// Whether the name is the temporary name of a weight file.
bool is_unfinished_weight_file(std::string_view name) {
    return name.ends_with(kIncomplete) && is_weight_file(name.substr(0, name.size() - kIncomplete.size()));
}

void remove_files(const fs::path& directory, bool (*is_stale)(std::string_view)) {
    std::error_code ignored;
    std::vector<fs::path> stale;
    for (const auto& entry : fs::directory_iterator(directory)) {
        if (is_stale(entry.path().filename().string())) stale.push_back(entry.path());
    }
    for (const auto& path : stale) fs::remove(path, ignored);
}

}  // namespace

struct CheckpointWriter::Impl {
    fs::path directory;
    bool created_directory = false;
    bool committed = false;
    std::vector<Slot> slots;
    std::map<std::string_view, std::size_t> by_name;  // keys refer to the names in `slots`
    std::vector<std::string> shard_names;
    std::vector<std::uint64_t> data_start;
    std::vector<OutputFile> shards;
    std::vector<std::pair<std::string, OutputFile>> files;
    std::uint64_t total_bytes = 0;
    std::mutex mutex;
    std::mutex copying;
    std::vector<CopyBuffer> free_buffers;  // at most as many as were in use at the same time

    CopyBuffer take_buffer() {
        const std::lock_guard lock(copying);
        if (free_buffers.empty()) return {};
        CopyBuffer buffer = std::move(free_buffers.back());
        free_buffers.pop_back();
        return buffer;
    }
    void return_buffer(CopyBuffer buffer) {
        const std::lock_guard lock(copying);
        free_buffers.push_back(std::move(buffer));
    }

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

    void write_headers(bool resume) {
        std::vector<std::string> headers;
        std::vector<std::uint64_t> shard_bytes;
        auto first = slots.begin();
        for (std::size_t shard = 0; shard < shard_names.size(); ++shard) {
            const auto last = std::find_if(first, slots.end(), [&](const Slot& s) { return s.shard != shard; });
            const auto order = lay_out({first, last});
            headers.push_back(header_text(std::vector<const Slot*>(order.begin(), order.end()), {{"format", "pt"}}));
            shard_bytes.push_back(headers.back().size());
            for (const Slot* slot : order) shard_bytes.back() += slot->bytes;
            total_bytes += shard_bytes.back();
            first = last;
        }
        // A resumed output already holds a part of its bytes; only the file system knows how many.
        if (!resume) check_free_space(directory, total_bytes);
        for (std::size_t shard = 0; shard < shard_names.size(); ++shard) {
            const fs::path path = directory / shard_names[shard];
            if (resume) restore_temporary_name(path);
            shards.emplace_back(path, resume ? OutputFile::Start::resume : OutputFile::Start::empty);
            if (resume) shards.back().resize(shard_bytes[shard]);
            data_start.push_back(headers[shard].size());
            shards.back().write_at(0, std::as_bytes(std::span(headers[shard])));
        }
        flush_directory(directory);  // flushed data is lost if the file's name is
    }

    /// Restores the temporary name of a file that an interrupted commit() had already renamed. If there is a
    /// config.json, the file belongs to another, complete checkpoint and is left alone.
    void restore_temporary_name(const fs::path& path) const {
        const fs::path temporary = path.string() + std::string(kIncomplete);
        std::error_code ignored;
        if (fs::exists(temporary, ignored) || fs::exists(directory / "config.json", ignored)) return;
        fs::rename(path, temporary, ignored);
    }

    Slot& find(std::string_view name) {
        const auto it = by_name.find(name);
        if (it == by_name.end()) misuse("not announced", name);
        return slots[it->second];
    }

    /// The slot to which `bytes` more are to be written; counts them as written.
    Slot& claim(std::string_view name, std::uint64_t offset, std::uint64_t bytes) {
        const std::lock_guard lock(mutex);
        Slot& slot = find(name);
        if (offset != slot.written || bytes > slot.bytes - offset) {
            misuse("written twice, out of order or with another size", name);
        }
        slot.written += bytes;
        return slot;
    }

    void add(const std::string& name, std::string_view content) {
        files.emplace_back(name, OutputFile(directory / name));
        files.back().second.write_at(0, std::as_bytes(std::span(content)));
    }

    /// Removes the weights of an older checkpoint that is overwritten.
    void remove_stale_weights() const {
        std::error_code ignored;
        fs::remove(directory / "config.json", ignored);
        remove_files(directory, is_weight_file);
        flush_directory(directory);  // before any new file gets its name
    }
};

void check_output_directory(const fs::path& directory, bool overwrite) {
    std::error_code error;
    if (!fs::exists(directory, error)) return;
    if (!fs::is_directory(directory, error)) {
        throw Error(ErrorCode::io, directory.string() + ": exists and is not a directory; choose another place");
    }
    if (!overwrite && !fs::is_empty(directory, error)) {
        throw Error(ErrorCode::io, directory.string() + ": exists and is not empty", Remedy::overwrite);
    }
}

CheckpointWriter::CheckpointWriter(const fs::path& directory, std::vector<TensorSpec> tensors, const Options& options)
    : impl_(std::make_unique<Impl>()) {
    if (!options.resume) check_output_directory(directory, options.overwrite);
    std::error_code error;
    impl_->created_directory = fs::create_directories(directory, error);
    if (error) throw Error(ErrorCode::io, directory.string() + ": cannot create directory: " + error.message());
    impl_->directory = directory;
    if (!options.resume) remove_files(directory, is_unfinished_weight_file);
    try {
        impl_->slots = make_slots(std::move(tensors));
        for (std::size_t i = 0; i < impl_->slots.size(); ++i) {
            if (!impl_->by_name.emplace(impl_->slots[i].spec.name, i).second) {
                misuse("announced twice", impl_->slots[i].spec.name);
            }
        }
        impl_->assign_shards(options.max_shard_bytes);
        impl_->write_headers(options.resume);
    } catch (...) {
        if (options.resume) keep();
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
    Slot& slot = impl_->claim(name, offset, data.size());
    slot.add(data);
    CopyBuffer buffer = impl_->take_buffer();
    impl_->shards[slot.shard].write_at(impl_->data_start[slot.shard] + slot.begin + offset, data, buffer);
    impl_->return_buffer(std::move(buffer));
}

void CheckpointWriter::copy(std::string_view name, const TensorView& source, const SafetensorsFile& file) {
    Slot& slot = impl_->claim(name, 0, source.data.size());
    CopyBuffer buffer = impl_->take_buffer();
    slot.hash = impl_->shards[slot.shard].copy_at(impl_->data_start[slot.shard] + slot.begin, file.file().descriptor(),
                                                  source.file_offset, source.data, buffer);
    impl_->return_buffer(std::move(buffer));
}

void CheckpointWriter::add_file(const std::string& file_name, std::string_view content) {
    impl_->add(file_name, content);
}

void CheckpointWriter::copy_file(const std::string& file_name, const fs::path& source) {
    const MappedFile mapped(source);
    impl_->files.emplace_back(file_name, OutputFile(impl_->directory / file_name));
    CopyBuffer buffer = impl_->take_buffer();
    impl_->files.back().second.copy_at(0, mapped.descriptor(), 0, mapped.bytes(), buffer);
    impl_->return_buffer(std::move(buffer));
}

std::string CheckpointWriter::hash_of(std::string_view name) const {
    const Slot& slot = impl_->find(name);
    if (slot.written != slot.bytes) misuse("never written as a whole", name);
    return slot.bytes == 0 ? mha2mla::hash_of(std::span<const std::byte>()) : slot.hash;
}

bool CheckpointWriter::take_over(const std::map<std::string, std::string>& hashes) {
    for (const auto& [name, hash] : hashes) {
        const Slot& slot = impl_->find(name);
        const OutputFile& shard = impl_->shards[slot.shard];
        if (shard.hash_at(impl_->data_start[slot.shard] + slot.begin, slot.bytes) != hash) return false;
    }
    for (const auto& [name, hash] : hashes) {
        const std::uint64_t bytes = impl_->find(name).bytes;
        impl_->claim(name, 0, bytes).hash = hash;
    }
    return true;
}

void CheckpointWriter::flush(std::span<const std::string> names) {
    std::set<std::size_t> shards;
    for (const auto& name : names) shards.insert(impl_->find(name).shard);
    for (const std::size_t shard : shards) impl_->shards[shard].flush();
}

void CheckpointWriter::keep() {
    for (auto& shard : impl_->shards) shard.keep();
    impl_->created_directory = false;
}

std::size_t CheckpointWriter::file_count() const { return impl_->shards.size() + impl_->files.size(); }

CheckpointWriter::FileRecord CheckpointWriter::finish_file(std::size_t i) {
    if (i >= impl_->shards.size()) {
        auto& [name, file] = impl_->files.at(i - impl_->shards.size());
        file.flush();
        const std::uint64_t bytes = file.size();
        return {name, bytes, file.hash_at(0, bytes), {}};
    }
    impl_->shards[i].flush();
    FileRecord record{impl_->shard_names[i], impl_->shards[i].size(), {}, {}};
    for (const Slot& slot : impl_->slots) {
        if (slot.shard == i) record.tensors.emplace(slot.spec.name, hash_of(slot.spec.name));
    }
    return record;
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

}  // namespace mha2mla
