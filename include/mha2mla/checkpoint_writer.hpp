#pragma once
/// Atomic writing of checkpoint directories.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "mha2mla/safetensors.hpp"

namespace mha2mla {

/// Checks whether an output may be written to `directory`.
/// @throws Error{io} if it exists and is not a directory, or is not empty and `overwrite` is false.
void check_output_directory(const std::filesystem::path& directory, bool overwrite);

/// Writes a checkpoint directory whose tensors are known in advance. Tensors may be written in any order and from
/// several threads. Every file is written in a hidden directory of the output; commit() flushes them all and moves them
/// to their names in exchange for those that were there: a failure leaves what was there. Without commit() the
/// destructor removes the files, unless keep() was called: then a writer of the same layout can resume from them.
class CheckpointWriter {
public:
    struct Options {
        std::uint64_t max_shard_bytes = 5'000'000'000;
        bool overwrite = false;  // replace the files of a directory that is not empty
        bool resume = false;     // resume from the files of an earlier writer of the same layout; see take_over()
    };
    struct FileRecord {
        std::string name;  // final name
        std::uint64_t bytes = 0;
        std::string hash;                            // hash of its bytes; empty for a weight file
        std::map<std::string, std::string> tensors;  // of a weight file: tensor name -> hash of its data
    };

    /// Creates `directory` and lays out the shards in the order of `tensors`.
    /// @throws Error{io} if it exists and is not empty (unless overwrite), or if there is not enough space.
    CheckpointWriter(const std::filesystem::path& directory, std::vector<TensorSpec> tensors, const Options& options);
    ~CheckpointWriter();
    CheckpointWriter(const CheckpointWriter&) = delete;
    CheckpointWriter& operator=(const CheckpointWriter&) = delete;
    CheckpointWriter(CheckpointWriter&&) = delete;
    CheckpointWriter& operator=(CheckpointWriter&&) = delete;

    /// Writes the data of a tensor. Must be called exactly once per tensor. @throws Error{io} if the disk is full.
    void write(std::string_view name, std::span<const std::byte> data);
    /// Writes the part of a tensor's data that starts at byte `offset`. The parts must come in order, without gaps.
    void write_part(std::string_view name, std::uint64_t offset, std::span<const std::byte> data);
    /// Copies a tensor's data from a mapped file, in blocks and without the page cache if the file system supports it.
    void copy(std::string_view name, const TensorView& source, const SafetensorsFile& file);
    /// Adds a small file such as config.json; one of the same name is replaced. The name may have one folder in front,
    /// which takes the place of one of the same name.
    void add_file(const std::string& file_name, std::string_view content);
    void copy_file(const std::string& file_name, const std::filesystem::path& source);

    /// Hash of the data of a tensor that was written completely.
    [[nodiscard]] std::string hash_of(std::string_view name) const;
    /// With Options::resume: reads back tensors that an earlier writer wrote. If all of them have the given hashes,
    /// they count as written; otherwise all are still to be written. @return whether all hashes matched.
    bool take_over(const std::map<std::string, std::string>& hashes);
    /// Flushes the files of these tensors to disk. May run while other tensors are written.
    void flush(std::span<const std::string> names);
    /// Leaves the weights in the hidden directory when the writer is destroyed without commit().
    void keep();

    /// The number of files so far: the weight files, then the added files.
    [[nodiscard]] std::size_t file_count() const;
    /// Flushes file `i` and reads it back. Several threads may finish different files. @throws Error{io}
    [[nodiscard]] FileRecord finish_file(std::size_t i);
    /// Checks that every tensor was written, flushes all files and moves them to their names. @throws Error{io}
    void commit();
    /// Whether all files have their names; also if commit() could not remove what they replaced, and threw.
    [[nodiscard]] bool committed() const;

    [[nodiscard]] std::uint64_t total_bytes() const;  ///< size of all shards, headers included

private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace mha2mla
