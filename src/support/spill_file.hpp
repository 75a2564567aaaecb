#pragma once
#include <cstdint>
#include <filesystem>
#include <span>

namespace mha2mla {

/// Temporary space on disk. The file has no name, so the system removes it however the process ends.
class SpillFile {
public:
    /// @param directory if empty: $TMPDIR; without it /var/tmp, which unlike /tmp is never in memory; otherwise /tmp.
    /// @throws Error{io} if no file can be created there or less than `bytes` are free.
    SpillFile(const std::filesystem::path& directory, std::uint64_t bytes);
    ~SpillFile();
    SpillFile(const SpillFile&) = delete;
    SpillFile& operator=(const SpillFile&) = delete;
    SpillFile(SpillFile&&) = delete;
    SpillFile& operator=(SpillFile&&) = delete;

    /// @throws Error{io} if the disk is full.
    void write(std::uint64_t offset, std::span<const std::byte> data);
    /// Reads back what was written at `offset`. @throws Error{io}
    void read(std::uint64_t offset, std::span<std::byte> data) const;
    /// Hints that the system should read this range ahead.
    void will_need(std::uint64_t offset, std::uint64_t bytes) const;

private:
    std::filesystem::path directory_;
    int descriptor_ = -1;
};

}  // namespace mha2mla
