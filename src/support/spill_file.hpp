#pragma once
#include <cstdint>
#include <filesystem>
#include <span>

namespace mha2mla {

/// Scratch space on disk. The file has no name, so that nothing is left of it however the process ends.
class SpillFile {
public:
    /// @param directory empty: $TMPDIR, or /var/tmp, which unlike /tmp is not in memory, or /tmp.
    /// @throws Error{io} if no file can be made there or `bytes` do not fit.
    SpillFile(const std::filesystem::path& directory, std::uint64_t bytes);
    ~SpillFile();
    SpillFile(const SpillFile&) = delete;
    SpillFile& operator=(const SpillFile&) = delete;
    SpillFile(SpillFile&&) = delete;
    SpillFile& operator=(SpillFile&&) = delete;

    /// @throws Error{io} if the disk is full.
    void write(std::uint64_t offset, std::span<const std::byte> data);
    /// What was written there. @throws Error{io}
    void read(std::uint64_t offset, std::span<std::byte> data) const;
    /// Asks the system to read ahead. Only a hint.
    void will_need(std::uint64_t offset, std::uint64_t bytes) const;

private:
    std::filesystem::path directory_;
    int descriptor_ = -1;
};

}  // namespace mha2mla
