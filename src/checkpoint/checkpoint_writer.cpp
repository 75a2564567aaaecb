#include "mha2mla/checkpoint_writer.hpp"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <nlohmann/json.hpp>
#include <set>

#include "../support/file_operations.hpp"
#include "../support/hash.hpp"
#include "../support/output_file.hpp"
#include "destination.hpp"
#include "exchange.hpp"
#include "mha2mla/error.hpp"
#include "mha2mla/mapped_file.hpp"
#include "shard_layout.hpp"

namespace mha2mla {
namespace fs = std::filesystem;
namespace {

/// Reports a mistake of the calling code, not of its input.
[[noreturn]] void misuse(const char* what, std::string_view tensor) {
    throw Error(ErrorCode::usage, "CheckpointWriter: tensor '" + std::string(tensor) + "' was " + what);
}

}  // namespace

struct CheckpointWriter::Impl {
    /// A file beside the weights.
    struct SmallFile {
        std::string name;
        bool flushed = false;
    };

    fs::path directory;
    bool created_directory = false;
    bool committed = false, kept = false;
    std::vector<Slot> slots;
    std::map<std::string_view, std::size_t> by_name;  // keys refer to the names in `slots`
    std::vector<std::string> shard_names;
    std::vector<std::uint64_t> data_start;
    std::vector<OutputFile> shards;
    std::vector<SmallFile> small_files;
    std::string index_text;  // of several shards
    fs::path staging;
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
        index_text = index.dump(2) + "\n";
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
            shards.push_back(open(shard_names[shard], resume ? OutputFile::Start::resume : OutputFile::Start::empty));
            if (resume) shards.back().resize(shard_bytes[shard]);
            data_start.push_back(headers[shard].size());
            shards.back().write_at(0, std::as_bytes(std::span(headers[shard])));
        }
        flush_directory(staging);  // flushed data is lost if the file's name is
        flush_directory(directory);
    }

    /// A file that waits in the staging directory.
    [[nodiscard]] OutputFile open(const std::string& name, OutputFile::Start start) const {
        if (const fs::path folder = fs::path(name).parent_path(); !folder.empty()) {
            if (const int error = files::make_directory(staging / folder)) {
                throw Error(ErrorCode::io,
                            (directory / folder).string() + ": cannot create it: " + std::strerror(error));
            }
        }
        return OutputFile(directory / name, start, staging / name);
    }

    /// Makes the staging directory, with nothing in it but the shards of an earlier writer.
    void clear_staging(bool resume) const {
        const auto check = [&](int error, const char* action) {
            if (error == 0) return;
            throw Error(ErrorCode::io, staging.string() + ": cannot " + action + ": " + std::strerror(error));
        };
        if (!resume) check(files::remove_all(staging), "remove it");
        check(files::make_directory(staging), "create it");
        std::vector<std::string> names;
        check(files::list(staging, names), "list it");
        for (const auto& name : names) {
            if (std::ranges::find(shard_names, name) == shard_names.end()) {
                check(files::remove_all(staging / name), "remove its files");
            }
        }
    }

    /// Removes what was written, and the directory if it was made for it.
    void remove() {
        shards.clear();
        (void)files::remove_all(staging);
        std::error_code ignored;
        if (created_directory) fs::remove(directory, ignored);
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

    /// Writes a small file. It is closed again, for there may be more of them than descriptors.
    template <typename Write>
    void add(const std::string& name, const Write& write) {
        OutputFile file = open(name, OutputFile::Start::empty);
        write(file);
        file.keep();
        std::erase_if(small_files, [&](const SmallFile& other) { return other.name == name; });
        small_files.push_back({name});
    }

    void add_text(const std::string& name, std::string_view content) {
        add(name, [&](OutputFile& file) { file.write_at(0, std::as_bytes(std::span(content))); });
    }

    /// A small file, flushed and opened again.
    OutputFile flushed(SmallFile& small) const {
        OutputFile file = open(small.name, OutputFile::Start::resume);
        if (!small.flushed) file.flush();
        small.flushed = true;
        return file;
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
    impl_->staging = staging_path(directory);
    try {
        finish_exchange(directory);
        impl_->slots = make_slots(std::move(tensors));
        for (std::size_t i = 0; i < impl_->slots.size(); ++i) {
            if (!impl_->by_name.emplace(impl_->slots[i].spec.name, i).second) {
                misuse("announced twice", impl_->slots[i].spec.name);
            }
        }
        impl_->assign_shards(options.max_shard_bytes);
        impl_->clear_staging(options.resume);
        impl_->write_headers(options.resume);
        if (!impl_->index_text.empty()) impl_->add_text("model.safetensors.index.json", impl_->index_text);
    } catch (...) {
        if (options.resume) {
            keep();
        } else {
            impl_->remove();
        }
        throw;
    }
}

CheckpointWriter::~CheckpointWriter() {
    if (!impl_->committed && !impl_->kept) impl_->remove();
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
    impl_->add_text(file_name, content);
}

void CheckpointWriter::copy_file(const std::string& file_name, const fs::path& source) {
    const MappedFile mapped(source);
    CopyBuffer buffer = impl_->take_buffer();
    impl_->add(file_name, [&](OutputFile& file) { file.copy_at(0, mapped.descriptor(), 0, mapped.bytes(), buffer); });
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
    impl_->kept = true;
}

std::size_t CheckpointWriter::file_count() const { return impl_->shards.size() + impl_->small_files.size(); }

CheckpointWriter::FileRecord CheckpointWriter::finish_file(std::size_t i) {
    if (i >= impl_->shards.size()) {
        auto& small = impl_->small_files.at(i - impl_->shards.size());
        OutputFile file = impl_->flushed(small);
        const std::uint64_t bytes = file.size();
        FileRecord record{small.name, bytes, file.hash_at(0, bytes), {}};
        file.keep();
        return record;
    }
    impl_->shards[i].flush();
    FileRecord record{impl_->shard_names[i], impl_->shards[i].size(), {}, {}};
    for (const Slot& slot : impl_->slots) {
        if (slot.shard == i) record.tensors.emplace(slot.spec.name, hash_of(slot.spec.name));
    }
    return record;
}

void CheckpointWriter::commit() {
    check_mapped_files();
    for (const auto& slot : impl_->slots) {
        if (slot.written != slot.bytes) misuse("never written as a whole", slot.spec.name);
    }
    for (auto& shard : impl_->shards) shard.flush();
    for (auto& small : impl_->small_files) {
        if (!small.flushed) impl_->flushed(small).keep();
    }
    for (auto& shard : impl_->shards) shard.keep();  // closed: moving files takes descriptors too
    for (const auto& small : impl_->small_files) {
        flush_directory((impl_->staging / small.name).parent_path());
    }
    flush_directory(impl_->staging);
    const std::string left = exchange(impl_->directory);
    impl_->committed = true;
    if (!left.empty()) throw Error(ErrorCode::io, left + "; the output is whole", Remedy::resume);
}

bool CheckpointWriter::committed() const { return impl_->committed; }

std::uint64_t CheckpointWriter::total_bytes() const { return impl_->total_bytes; }

}  // namespace mha2mla
