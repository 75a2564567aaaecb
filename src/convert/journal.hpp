#pragma once
/// Which pieces of an unfinished conversion are on disk: JSON Lines beside the unfinished files.

#include <condition_variable>
#include <exception>
#include <filesystem>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "mha2mla/checkpoint.hpp"
#include "mha2mla/checkpoint_writer.hpp"
#include "mha2mla/rope.hpp"

namespace mha2mla {

/// A layer, or a tensor that is copied.
struct FinishedPiece {
    std::string name;
    std::map<std::string, std::string> tensors;  // name -> hash of its data
    double retained_energy = 1;                  // of a layer
    double balance = 0;                          // of a layer with `whitened`
    double alignment_error = 0;                  // of an aligned layer
};

// NOLINTNEXTLINE(bugprone-exception-escape): moving JSON may throw by its type, but does not
struct JournalContents {
    nlohmann::ordered_json fingerprint;
    std::optional<PairRanks> ranks;
    std::map<std::string, FinishedPiece> pieces;
    std::uint64_t bytes = 0;  // up to the end of the last whole line
};

[[nodiscard]] std::filesystem::path journal_path(const std::filesystem::path& directory);
/// What an aligner needs to go on, beside the journal of its conversion.
[[nodiscard]] std::filesystem::path alignment_path(const std::filesystem::path& directory);

/// What the journal in `directory` says; a line that was cut off, and what follows it, is ignored. Nothing if there is
/// no journal with a whole first line.
[[nodiscard]] std::optional<JournalContents> read_journal(const std::filesystem::path& directory);

/// The journal file, held by one process at a time.
class Journal {
public:
    /// Creates `directory` if need be, and starts a journal or goes on with `earlier`.
    /// @throws Error{io}, also if another process converts into `directory`.
    Journal(const std::filesystem::path& directory, const nlohmann::ordered_json& fingerprint, const PairRanks* ranks,
            const JournalContents* earlier);
    /// Removes it, and the directory if it was created here and is empty, unless it is to be kept.
    ~Journal();
    Journal(const Journal&) = delete;
    Journal& operator=(const Journal&) = delete;
    Journal(Journal&&) = delete;
    Journal& operator=(Journal&&) = delete;

    /// Appends and flushes to disk.
    void append(std::string_view lines);
    /// Whether it stays; at first only one that is continued.
    void keep(bool keep) { keep_ = keep; }

private:
    void lock();
    std::filesystem::path directory_;
    int descriptor_ = -1;
    bool created_directory_ = false, keep_ = false;
};

/// Flushes finished pieces and records them, on a thread of its own: several at a time where they come quickly, so that
/// no worker waits for the disk.
class PieceRecorder {
public:
    PieceRecorder(Journal& journal, CheckpointWriter& writer);
    /// Waits until all is recorded; a failure is lost here, unless finish() was called.
    ~PieceRecorder();
    PieceRecorder(const PieceRecorder&) = delete;
    PieceRecorder& operator=(const PieceRecorder&) = delete;
    PieceRecorder(PieceRecorder&&) = delete;
    PieceRecorder& operator=(PieceRecorder&&) = delete;

    /// A piece whose tensors the writer has got. @throws what recording an earlier one failed with.
    void record(FinishedPiece piece);
    /// Waits until all of them are on disk. @throws what recording them failed with.
    void settle();
    /// Waits until all is recorded. @throws Error{io}
    void finish();

private:
    void run();
    void stop();
    Journal& journal_;
    CheckpointWriter& writer_;
    std::mutex mutex_;
    std::condition_variable changed_;
    std::vector<FinishedPiece> waiting_;
    bool ended_ = false, settling_ = false, flushing_ = false;
    std::exception_ptr failure_;
    std::thread thread_;
};

}  // namespace mha2mla
