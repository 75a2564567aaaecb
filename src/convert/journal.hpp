#pragma once
/// The journal of an unfinished conversion: the pieces that are on disk, in JSON Lines beside the unfinished files.

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

#include "../checkpoint/destination.hpp"
#include "mha2mla/checkpoint.hpp"
#include "mha2mla/checkpoint_writer.hpp"
#include "mha2mla/rope.hpp"

namespace mha2mla {

/// A piece of the output: a layer, or a copied tensor.
struct FinishedPiece {
    std::string name;
    std::map<std::string, std::string> tensors;  // name -> hash of its data
    double retained_energy = 1;                  // of a layer
    double balance = 0;                          // of a layer with `whitened` or `weighted`
    double alignment_error = 0;                  // of an aligned layer
};

// NOLINTNEXTLINE(bugprone-exception-escape): moving JSON may throw by its type, but does not
struct JournalContents {
    nlohmann::ordered_json fingerprint;
    std::optional<PairRanks> ranks;
    std::map<std::string, FinishedPiece> pieces;
    std::uint64_t bytes = 0;  // size up to the end of the last complete line
};

/// Reads the journal in `directory`. A truncated line and everything after it is ignored. Nothing if there is no
/// journal that can be read with a complete first line.
[[nodiscard]] std::optional<JournalContents> read_journal(const std::filesystem::path& directory);

/// Completes what was interrupted when all files of an output were complete: moves them to their names, and removes
/// what only an unfinished conversion has. Does nothing if nothing was. @throws Error{io}
void settle(const std::filesystem::path& directory);
/// Whether settle() would do something.
[[nodiscard]] bool is_unsettled(const std::filesystem::path& directory);

/// The journal of the holder of the lock.
class Journal {
public:
    /// Starts a journal or continues `earlier`. @throws Error{io}
    Journal(const DestinationLock& lock, const nlohmann::ordered_json& fingerprint, const PairRanks* ranks,
            const JournalContents* earlier);
    /// Empties the journal, so that the lock removes it, unless it is to be kept.
    ~Journal();
    Journal(const Journal&) = delete;
    Journal& operator=(const Journal&) = delete;
    Journal(Journal&&) = delete;
    Journal& operator=(Journal&&) = delete;

    /// Appends pieces and flushes the file to disk.
    void append(std::string_view lines);
    /// Sets whether the journal is kept on destruction; initially only when resuming.
    void keep(bool keep) { keep_ = keep; }
    /// Removes the journal and the saved aligner of a conversion that is complete. @throws Error{io}
    void remove();

private:
    void clear() const noexcept;
    const DestinationLock& lock_;
    bool keep_ = false;
};

/// Flushes and records finished pieces on a thread of its own, several at a time if they finish quickly, so that no
/// worker waits for the disk.
class PieceRecorder {
public:
    PieceRecorder(Journal& journal, CheckpointWriter& writer);
    /// Waits until all pieces are recorded; a failure is ignored here, but finish() reports it.
    ~PieceRecorder();
    PieceRecorder(const PieceRecorder&) = delete;
    PieceRecorder& operator=(const PieceRecorder&) = delete;
    PieceRecorder(PieceRecorder&&) = delete;
    PieceRecorder& operator=(PieceRecorder&&) = delete;

    /// Records a piece whose tensors were passed to the writer. @throws the error of recording an earlier piece.
    void record(FinishedPiece piece);
    /// Waits until all pieces are on disk. @throws the error of recording them.
    void settle();
    /// Waits until all pieces are recorded. @throws Error{io}
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
