#include "journal.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <utility>

#include "../checkpoint/exchange.hpp"
#include "../support/file_operations.hpp"
#include "../support/json_file.hpp"
#include "../support/output_file.hpp"
#include "mha2mla/error.hpp"
#include "record.hpp"

namespace mha2mla {
namespace fs = std::filesystem;
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kFormat = "mha2mla journal 1";
/// Pieces that finish within this time are flushed together.
constexpr std::chrono::milliseconds kInterval(250);
constexpr std::size_t kMostWaiting = 128;  // number of waiting pieces that ends an interval early

Json ranks_json(const PairRanks& ranks) {
    Json json = {{"layers", ranks.layers}, {"kv_heads", ranks.kv_heads}, {"head_dim", ranks.head_dim}};
    json["values"] = ranks.values;
    return json;
}

PairRanks ranks_from_json(const Json& json) {
    PairRanks ranks{
        whole_number(json.at("layers")), whole_number(json.at("kv_heads")), whole_number(json.at("head_dim")), {}};
    for (const Json& value : json.at("values")) ranks.values.push_back(static_cast<std::uint8_t>(whole_number(value)));
    return ranks;
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

[[noreturn]] void fail(const fs::path& path, const char* action, int error) {
    throw Error(ErrorCode::io, path.string() + ": cannot " + action + ": " + std::strerror(error));
}

/// Whether the journal is what was left of the conversion that the directory holds as a whole, or of none.
bool is_left_over(const fs::path& directory) {
    if (!files::exists(journal_path(directory))) return false;
    const auto record = read_record(directory);
    if (!record) return false;
    const Json fingerprint = record->value("fingerprint", Json());
    const auto journal = read_journal(directory);
    return (!journal || journal->fingerprint == fingerprint) && whole_conversion(directory, fingerprint);
}

}  // namespace

std::optional<JournalContents> read_journal(const fs::path& directory) {
    const fs::path path = journal_path(directory);
    std::error_code ignored;
    if (!fs::is_regular_file(fs::symlink_status(path, ignored))) return std::nullopt;
    const MappedFile file(path);
    std::string_view rest(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
    std::optional<JournalContents> contents;
    for (auto end = rest.find('\n'); end != std::string_view::npos; end = rest.find('\n')) {
        try {
            const Json line = parse_json<Json>(rest.substr(0, end));  // if none, what follows throws
            if (contents) {
                FinishedPiece piece = piece_from_json(line);
                contents->pieces.insert_or_assign(piece.name, piece);
            } else {
                if (line.at("format") != kFormat) return std::nullopt;
                if (!line.at("fingerprint").is_object()) return std::nullopt;
                contents.emplace();
                contents->fingerprint = line.at("fingerprint");
                if (line.contains("ranks")) contents->ranks = ranks_from_json(line.at("ranks"));
            }
        } catch (const nlohmann::json::exception&) {
            if (contents && contents->bytes == 0) return std::nullopt;  // in its first line
            break;
        }
        contents->bytes += end + 1;
        rest.remove_prefix(end + 1);
    }
    return contents;
}

bool is_unsettled(const fs::path& directory) { return exchange_began(directory) || is_left_over(directory); }

void settle(const fs::path& directory) {
    if (!is_unsettled(directory)) return;
    const DestinationLock lock(directory);
    finish_exchange(directory);
    if (!is_left_over(directory)) return;
    lock.forget_unfinished();  // and the lock removes the journal
}

Journal::Journal(const DestinationLock& lock, const Json& fingerprint, const PairRanks* ranks,
                 const JournalContents* earlier)
    : lock_(lock), keep_(earlier != nullptr) {
    const fs::path path = journal_path(lock.directory());
    try {
        if (earlier != nullptr) {
            if (::ftruncate(lock.descriptor(), static_cast<off_t>(earlier->bytes)) != 0) fail(path, "cut off", errno);
            return;
        }
        lock.forget_unfinished();
        Json header;
        header["format"] = kFormat;
        header["fingerprint"] = fingerprint;
        if (ranks != nullptr) header["ranks"] = ranks_json(*ranks);
        append(header.dump() + "\n");
        flush_directory(lock.directory());
        flush_directory(fs::absolute(lock.directory()).lexically_normal().parent_path());
    } catch (...) {
        if (!keep_) clear();
        throw;
    }
}

void Journal::clear() const noexcept {
    try {
        lock_.forget_unfinished();
    } catch (...) {  // NOLINT(bugprone-empty-catch): what is left, the next command removes
    }
}

void Journal::remove() {
    keep_ = true;  // should it fail
    lock_.forget_unfinished();
    const fs::path path = journal_path(lock_.directory());
    if (const int error = files::remove(path)) fail(path, "remove", error);
    flush_directory(lock_.directory());
}

Journal::~Journal() {
    if (!keep_) clear();
}

void Journal::append(std::string_view lines) {
    const fs::path path = journal_path(lock_.directory());
    while (!lines.empty()) {
        const auto written = ::write(lock_.descriptor(), lines.data(), lines.size());
        if (written < 0 && errno == EINTR) continue;
        if (written <= 0) fail(path, "write", written < 0 ? errno : ENOSPC);
        lines.remove_prefix(static_cast<std::size_t>(written));
    }
    if (const int error = files::flush(lock_.descriptor())) fail(path, "flush", error);
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
