#include "journal.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>

#include "../support/output_file.hpp"
#include "mha2mla/error.hpp"

namespace mha2mla {
namespace fs = std::filesystem;
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kFormat = "mha2mla journal 1";
/// Pieces that finish within this time are flushed together.
constexpr std::chrono::milliseconds kInterval(250);
constexpr std::size_t kMostWaiting = 128;  // number of waiting pieces that ends an interval early
/// The time within which a killed process must have ended.
constexpr std::chrono::seconds kDying(3);

Json ranks_json(const PairRanks& ranks) {
    Json json = {{"layers", ranks.layers}, {"kv_heads", ranks.kv_heads}, {"head_dim", ranks.head_dim}};
    json["values"] = ranks.values;
    return json;
}

PairRanks ranks_from_json(const Json& json) {
    return {json.at("layers"), json.at("kv_heads"), json.at("head_dim"), json.at("values")};
}

std::string piece_line(const FinishedPiece& piece) {
    Json json;
    json["piece"] = piece.name;
    json["tensors"] = piece.tensors;
    json["retained_energy"] = piece.retained_energy;
    if (piece.balance > 0) json["kv_balance"] = piece.balance;
    if (piece.alignment_error > 0) json["alignment_error"] = piece.alignment_error;
    return json.dump() + "\n";
}

FinishedPiece piece_from_json(const Json& json) {
    return {json.at("piece"), json.at("tensors"), json.at("retained_energy"), json.value("kv_balance", 0.0),
            json.value("alignment_error", 0.0)};
}

/// Removes the saved aligner, and one that was not written to its end.
void remove_alignment(const fs::path& directory) {
    std::error_code ignored;
    fs::remove(alignment_path(directory), ignored);
    fs::remove(alignment_path(directory) += ".incomplete", ignored);
}

[[noreturn]] void fail(const fs::path& path, const char* action) {
    throw Error(ErrorCode::io, path.string() + ": cannot " + action + ": " + std::strerror(errno));
}

}  // namespace

fs::path journal_path(const fs::path& directory) { return directory / "mha2mla.journal.jsonl"; }
fs::path alignment_path(const fs::path& directory) { return directory / "mha2mla.alignment.safetensors"; }

std::optional<JournalContents> read_journal(const fs::path& directory) {
    const fs::path path = journal_path(directory);
    std::error_code ignored;
    if (!fs::exists(path, ignored)) return std::nullopt;
    const MappedFile file(path);
    std::string_view rest(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
    std::optional<JournalContents> contents;
    for (auto end = rest.find('\n'); end != std::string_view::npos; end = rest.find('\n')) {
        try {
            const Json line = Json::parse(rest.substr(0, end));
            if (contents) {
                FinishedPiece piece = piece_from_json(line);
                contents->pieces.insert_or_assign(piece.name, piece);
            } else {
                if (line.at("format") != kFormat) return std::nullopt;
                contents.emplace();
                contents->fingerprint = line.at("fingerprint");
                if (line.contains("ranks")) contents->ranks = ranks_from_json(line.at("ranks"));
            }
        } catch (const nlohmann::json::exception&) {
            break;
        }
        contents->bytes += end + 1;
        rest.remove_prefix(end + 1);
    }
    return contents;
}

Journal::Journal(const fs::path& directory, const Json& fingerprint, const PairRanks* ranks,
                 const JournalContents* earlier)
    : directory_(directory), keep_(earlier != nullptr) {
    std::error_code error;
    created_directory_ = fs::create_directories(directory, error);
    if (error) throw Error(ErrorCode::io, directory.string() + ": cannot create directory: " + error.message());
    const fs::path path = journal_path(directory);
    descriptor_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (descriptor_ < 0) fail(path, "create");
    try {
        lock();
        if (::ftruncate(descriptor_, earlier == nullptr ? 0 : static_cast<off_t>(earlier->bytes)) != 0) {
            fail(path, "cut off");
        }
        if (earlier != nullptr) return;
        remove_alignment(directory);
        Json header;
        header["format"] = kFormat;
        header["fingerprint"] = fingerprint;
        if (ranks != nullptr) header["ranks"] = ranks_json(*ranks);
        append(header.dump() + "\n");
        flush_directory(directory);
        flush_directory(fs::absolute(directory).lexically_normal().parent_path());
    } catch (...) {
        ::close(descriptor_);
        throw;
    }
}

void Journal::lock() {
    // A killed process may still be writing; it releases the lock when it ends.
    for (const auto end = std::chrono::steady_clock::now() + kDying; std::chrono::steady_clock::now() < end;) {
        if (::flock(descriptor_, LOCK_EX | LOCK_NB) == 0) return;
        if (errno != EWOULDBLOCK) return;  // a file system without locks
        std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
    throw Error(ErrorCode::io, directory_.string() +
                                   ": another process is converting into this directory; wait for it "
                                   "or choose another place");
}

Journal::~Journal() {
    if (!keep_) {
        std::error_code ignored;
        fs::remove(journal_path(directory_), ignored);
        remove_alignment(directory_);
        if (created_directory_) fs::remove(directory_, ignored);
        flush_directory(directory_);
    }
    ::close(descriptor_);
}

void Journal::append(std::string_view lines) {
    while (!lines.empty()) {
        const auto written = ::write(descriptor_, lines.data(), lines.size());
        if (written < 0 && errno == EINTR) continue;
        if (written <= 0) fail(journal_path(directory_), "write");
        lines.remove_prefix(static_cast<std::size_t>(written));
    }
    if (::fdatasync(descriptor_) != 0) fail(journal_path(directory_), "flush");
}

PieceRecorder::PieceRecorder(Journal& journal, CheckpointWriter& writer)
    : journal_(journal), writer_(writer), thread_([this] { run(); }) {}

PieceRecorder::~PieceRecorder() { stop(); }

void PieceRecorder::record(FinishedPiece piece) {
    const std::lock_guard lock(mutex_);
    if (failure_) std::rethrow_exception(failure_);
    waiting_.push_back(std::move(piece));
    changed_.notify_all();
}

void PieceRecorder::settle() {
    std::unique_lock lock(mutex_);
    settling_ = true;
    changed_.notify_all();
    changed_.wait(lock, [&] { return failure_ || (waiting_.empty() && !flushing_); });
    settling_ = false;
    if (failure_) std::rethrow_exception(failure_);
}

void PieceRecorder::stop() {
    {
        const std::lock_guard lock(mutex_);
        ended_ = true;
        changed_.notify_all();
    }
    if (thread_.joinable()) thread_.join();
}

void PieceRecorder::finish() {
    stop();
    if (failure_) std::rethrow_exception(failure_);
}

void PieceRecorder::run() {
    std::unique_lock lock(mutex_);
    while (!failure_) {
        changed_.wait(lock, [&] { return ended_ || !waiting_.empty(); });
        if (waiting_.empty()) return;
        const auto pieces = std::exchange(waiting_, {});
        flushing_ = true;
        lock.unlock();
        std::exception_ptr failure;
        try {
            std::vector<std::string> tensors;
            std::string lines;
            for (const FinishedPiece& piece : pieces) {
                for (const auto& [name, hash] : piece.tensors) tensors.push_back(name);
                lines += piece_line(piece);
            }
            writer_.flush(tensors);
            journal_.append(lines);
        } catch (...) {
            failure = std::current_exception();
        }
        lock.lock();
        failure_ = failure;
        flushing_ = false;
        changed_.notify_all();
        changed_.wait_for(lock, kInterval, [&] { return ended_ || settling_ || waiting_.size() >= kMostWaiting; });
    }
}

}  // namespace mha2mla
