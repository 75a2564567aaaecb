#pragma once
/// Checkpoint directories that appear whole or not at all.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "mha2mla/safetensors.hpp"

namespace mha2mla {

/// @throws Error{io} if `directory` exists and is not an empty directory, unless it may be overwritten.
void check_output_directory(const std::filesystem::path& directory, bool overwrite);

/// Writes a checkpoint directory whose layout is known beforehand, in any order of tensors and from several
/// threads, and makes it visible all at once: every file is written under a temporary name, flushed to disk and
/// renamed by commit(), config.json last. Without commit() the destructor removes what was written, unless keep() was
/// called: then a writer of the same layout can go on with it.
class CheckpointWriter {
public:
    struct Options {
        std::uint64_t max_shard_bytes = 5'000'000'000;
        bool overwrite = false;  // replace a directory that holds files
        bool resume = false;     // go on with what a writer of the same layout left; take_over() says which tensors
    };
    struct FileRecord {
        std::string name;  // final name
        std::uint64_t bytes = 0;
        std::string hash;                            // of its bytes; empty for a weight file
        std::map<std::string, std::string> tensors;  // of a weight file: name -> hash of its data
    };

    /// Creates `directory` and lays out the shards in the order of `tensors`.
    /// @throws Error{io} if it exists and is not empty (unless overwrite), or if there is not enough space.
    CheckpointWriter(const std::filesystem::path& directory, std::vector<TensorSpec> tensors, const Options& options);
    ~CheckpointWriter();
    CheckpointWriter(const CheckpointWriter&) = delete;
    CheckpointWriter& operator=(const CheckpointWriter&) = delete;
    CheckpointWriter(CheckpointWriter&&) = delete;
    CheckpointWriter& operator=(CheckpointWriter&&) = delete;

    /// Gives a tensor its data. Each tensor exactly once. @throws Error{io} if the disk is full.
    void write(std::string_view name, std::span<const std::byte> data);
    /// Gives a tensor the part of its data that starts at byte `offset`; parts in order, without gaps.
    void write_part(std::string_view name, std::uint64_t offset, std::span<const std::byte> data);
    /// The same from a mapped file, a little at a time and past the page cache where the file system can.
    void copy(std::string_view name, const TensorView& source, const SafetensorsFile& file);
    /// Adds a small file such as config.json; renamed after the weights, config.json last of all.
    void add_file(const std::string& file_name, std::string_view content);
    void copy_file(const std::string& file_name, const std::filesystem::path& source);

    /// Hash of the data that a tensor was given as a whole.
    [[nodiscard]] std::string hash_of(std::string_view name) const;
    /// With Options::resume: reads tensors back that an earlier writer wrote. If the data of all have the hashes given,
    /// they count as written; otherwise all are still to be written. @return whether they have.
    bool take_over(const std::map<std::string, std::string>& hashes);
    /// Flushes the files of these tensors to disk. May run while other tensors are written.
    void flush(std::span<const std::string> names);
    /// Leaves the weights under their temporary names when the writer is destroyed without commit().
    void keep();

    /// Files so far: the weights, then what was added.
    [[nodiscard]] std::size_t file_count() const;
    /// Flushes file `i` and reads it back. Different files may be finished by different threads. @throws Error{io}
    [[nodiscard]] FileRecord finish_file(std::size_t i);
    /// Checks that every tensor was written, flushes and renames. @throws Error{io}
    void commit();

    [[nodiscard]] std::uint64_t total_bytes() const;  ///< of all shards, headers included

private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

/// Writes one safetensors file atomically (temporary name, flush, rename).
/// @param data called for each tensor in turn, so that not all need be in memory: what it returns lives until the next.
void write_safetensors(const std::filesystem::path& path, const std::vector<TensorSpec>& tensors,
                       const std::function<std::span<const std::byte>(std::size_t)>& data,
                       const std::map<std::string, std::string>& metadata);

}  // namespace mha2mla
