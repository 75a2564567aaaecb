#pragma once
#include <filesystem>
#include <string_view>

namespace mha2mla {

/// A JSON Lines file that grows by whole lines, in one process at a time.
class PredictionFile {
public:
    enum class Start : std::uint8_t { resume, empty };
    /// Locks the file, which is created where there is none, and removes an incomplete line that a killed process left.
    /// @throws Error{io}, also if another process holds the lock.
    PredictionFile(std::filesystem::path path, Start start);
    ~PredictionFile();
    PredictionFile(const PredictionFile&) = delete;
    PredictionFile& operator=(const PredictionFile&) = delete;
    PredictionFile(PredictionFile&&) = delete;
    PredictionFile& operator=(PredictionFile&&) = delete;

    /// Appends a line, its line break included. It is on disk when this returns. @throws Error{io}
    void append(std::string_view line);
    [[nodiscard]] const std::filesystem::path& path() const { return path_; }

private:
    [[noreturn]] void fail(const char* action, int error) const;
    void lock() const;
    void cut_after_last_line() const;
    std::filesystem::path path_;
    int descriptor_ = -1;
};

/// A lock on a directory of predictions: many runs of the same settings share it; who changes the settings has it
/// alone.
class PredictionsLock {
public:
    /// Shares it. @throws Error{io} if another process has it alone
    explicit PredictionsLock(std::filesystem::path directory);
    ~PredictionsLock();
    PredictionsLock(const PredictionsLock&) = delete;
    PredictionsLock& operator=(const PredictionsLock&) = delete;
    PredictionsLock(PredictionsLock&&) = delete;
    PredictionsLock& operator=(PredictionsLock&&) = delete;

    /// @throws Error{io} if other processes share it
    void take_alone() const;
    void share() const;

private:
    void lock(int operation) const;
    std::filesystem::path directory_;
    int descriptor_ = -1;
};

}  // namespace mha2mla
