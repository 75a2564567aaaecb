#pragma once
/// An output directory while a command is at it: the right to change it, and what commands leave there that are not at
/// their end. All commands that write checkpoints know each other's files, so that none takes them for a user's, goes
/// on beside them or leaves them behind.

#include <array>
#include <cstdint>
#include <filesystem>
#include <string_view>

namespace mha2mla {

/// Of finished outputs, what names all other files under the key "files": of a conversion, of a training run.
inline constexpr std::string_view kRecordFile = "mha2mla.json", kTrainingRecord = "mha2mla.training.json";
/// The log of the steps of a training run, in its output.
inline constexpr std::string_view kTrainingLog = "training.jsonl";
inline constexpr std::array<std::string_view, 2> kRecordFiles = {kRecordFile, kTrainingRecord};

/// The journal of a conversion. Every command that writes a checkpoint locks it, made empty if there is none.
[[nodiscard]] std::filesystem::path journal_path(const std::filesystem::path& directory);
/// The saved aligner of a conversion, beside its journal.
[[nodiscard]] std::filesystem::path alignment_path(const std::filesystem::path& directory);

// Of an unfinished training run: what it is, its state and log, and the weights of the best evaluation where it may end
// before its last step.
inline constexpr std::string_view kRunFile = "mha2mla.training-run.json", kRunLog = "mha2mla.training-run.jsonl",
                                  kRunState = "mha2mla.training-run.safetensors",
                                  kBestState = "mha2mla.training-best.safetensors";

/// Whether the name is that of a file that only an unfinished output has.
[[nodiscard]] bool is_unfinished_name(std::string_view name);
/// The same without the directories of an exchange and the journal, which is the lock: what the files of a finished
/// output replace.
[[nodiscard]] bool is_progress_name(std::string_view name);

/// @throws Error{io} if the directory holds anything but files that only an unfinished output has.
void check_only_unfinished(const std::filesystem::path& directory);
/// For a command that begins: the same, and if it holds what another command can go on with.
void check_new_output(const std::filesystem::path& directory);
/// Beside a finished output: removes what a process that was killed behind its last step left.
void remove_left_over(const std::filesystem::path& directory);
/// @throws Error{io} if there are not so many bytes free on the disk of a directory that exists
void check_free_space(const std::filesystem::path& directory, std::uint64_t needed);

/// The right to change a destination, which one process at a time can hold: a lock on its journal.
class DestinationLock {
public:
    /// Creates the directory and an empty journal if they do not exist.
    /// @throws Error{io}, also if another process holds the lock.
    explicit DestinationLock(std::filesystem::path directory);
    /// Removes the journal if it is empty, and the directory if the constructor created it and it is empty.
    ~DestinationLock();
    DestinationLock(const DestinationLock&) = delete;
    DestinationLock& operator=(const DestinationLock&) = delete;
    DestinationLock(DestinationLock&&) = delete;
    DestinationLock& operator=(DestinationLock&&) = delete;

    [[nodiscard]] const std::filesystem::path& directory() const { return directory_; }
    [[nodiscard]] int descriptor() const { return descriptor_; }
    /// For a command that begins anew: empties the journal and removes what any command could have gone on with.
    /// @throws Error{io}
    void forget_unfinished() const;

private:
    bool open_and_lock();
    void close();
    std::filesystem::path directory_;
    int descriptor_ = -1;
    bool created_directory_ = false;
};

}  // namespace mha2mla
