#include "exchange.hpp"

#include <algorithm>
#include <array>
#include <cctype>
#include <cstring>
#include <set>
#include <string>
#include <vector>

#include "../support/file_operations.hpp"
#include "../support/json_file.hpp"
#include "../support/output_file.hpp"
#include "destination.hpp"
#include "mha2mla/error.hpp"

namespace mha2mla {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view kStaging = ".mha2mla.incomplete";
constexpr std::string_view kReady = ".mha2mla.ready";
constexpr std::string_view kReplacing = ".mha2mla.replacing";
constexpr std::string_view kReplaced = ".mha2mla.replaced";
constexpr std::string_view kConfig = "config.json";

bool is_record(std::string_view name) { return std::ranges::find(kRecordFiles, name) != kRecordFiles.end(); }

/// The files of an older output, by its record; none if there is no record that can be read.
std::set<std::string, std::less<>> recorded_files(const fs::path& record) {
    std::error_code ignored;
    if (!fs::is_regular_file(fs::symlink_status(record, ignored))) return {};
    try {
        const auto json = read_json_file(record);
        const auto files = json.is_object() ? json.find("files") : json.end();
        if (!json.is_object() || files == json.end() || !files->is_object()) return {};
        std::set<std::string, std::less<>> names = {record.filename().string()};
        for (const auto& [name, entry] : files->items()) names.insert(name);
        return names;
    } catch (const Error&) {
        return {};
    }
}

void check(int error, const fs::path& path, const char* action) {
    if (error == 0) return;
    throw Error(ErrorCode::io, path.string() + ": cannot " + action + ": " + std::strerror(error));
}

void move(const fs::path& from, const fs::path& to) { check(files::rename(from, to), to, "put it in place"); }

std::vector<std::string> names_in(const fs::path& directory) {
    std::vector<std::string> names;
    check(files::list(directory, names), directory, "list");
    return names;
}

class Exchange {
public:
    explicit Exchange(const fs::path& directory)
        : directory_(directory),
          ready_(directory / kReady),
          replacing_(directory / kReplacing),
          replaced_(directory / kReplaced) {}

    void begin() const { move(staging_path(directory_), ready_); }

    /// From any state that an interruption can leave.
    void move_files() {
        for (const auto& path : {ready_, replacing_, replaced_}) {
            std::error_code ignored;
            const auto status = fs::symlink_status(path, ignored);
            if (!fs::exists(status) || fs::is_directory(status)) continue;
            throw Error(ErrorCode::io, path.string() + ": is in the way of the output's files; move it away");
        }
        new_ = names_in(ready_);
        std::stable_partition(new_.begin(), new_.end(), [](const auto& name) { return name != kConfig; });
        flush_directory(directory_);
        if (!files::exists(replaced_)) {
            move_out();
            move(replacing_, replaced_);
            flush_directory(directory_);
        }
        for (const auto& name : new_) {
            if (name == kConfig) flush_directory(directory_);
            move(ready_ / name, directory_ / name);
            ++moved_in_;
        }
        flush_directory(directory_);
    }

    /// @return what could not be removed; empty if all was.
    [[nodiscard]] std::string remove_old() const {
        for (const auto& path : {ready_, replacing_, replaced_}) {
            if (const int error = files::remove_all(path)) {
                return path.string() + ": cannot remove what was replaced: " + std::strerror(error);
            }
        }
        flush_directory(directory_);
        return "";
    }

    /// Moves everything back. Where that fails too, finish_exchange() can still go on from where it stopped.
    void undo() {
        // config.json is last in and first out, so that it never stands beside files of the other checkpoint.
        for (; moved_in_ > 0; --moved_in_) move(directory_ / new_[moved_in_ - 1], ready_ / new_[moved_in_ - 1]);
        if (files::exists(replaced_)) move(replaced_, replacing_);
        for (; moved_out_ > 0; --moved_out_) move(replacing_ / old_[moved_out_ - 1], directory_ / old_[moved_out_ - 1]);
        check(files::remove(replacing_), replacing_, "remove");
        move(ready_, staging_path(directory_));
        flush_directory(directory_);
    }

private:
    void move_out() {
        check(files::make_directory(replacing_), replacing_, "create");
        std::set<std::string, std::less<>> recorded;
        for (const auto record : kRecordFiles) {
            // After an interruption the record itself may have been moved.
            for (const auto& place : {replacing_, directory_}) recorded.merge(recorded_files(place / record));
        }
        for (const auto& name : names_in(directory_)) {
            const bool is_old =
                is_weight_file(name) || is_record(name) || is_progress_name(name) || recorded.contains(name);
            if (!is_old && std::ranges::find(new_, name) == new_.end()) continue;
            std::error_code ignored;
            if (fs::is_directory(fs::symlink_status(directory_ / name, ignored)) && !fs::is_directory(ready_ / name)) {
                throw Error(ErrorCode::io, (directory_ / name).string() +
                                               ": is a directory where a file is to be written; move it away");
            }
            old_.push_back(name);
        }
        // Records go last: until then they can be asked again.
        std::stable_partition(old_.begin(), old_.end(), [](const auto& name) { return !is_record(name); });
        std::stable_partition(old_.begin(), old_.end(), [](const auto& name) { return name == kConfig; });
        for (const auto& name : old_) {
            move(directory_ / name, replacing_ / name);
            ++moved_out_;
        }
    }

    const fs::path& directory_;
    fs::path ready_, replacing_, replaced_;
    std::vector<std::string> old_, new_;        // names, in the order in which they are moved
    std::size_t moved_out_ = 0, moved_in_ = 0;  // how many of them were
};

}  // namespace

fs::path staging_path(const fs::path& directory) { return directory / kStaging; }

bool is_exchange_name(std::string_view name) {
    return name == kStaging || name == kReady || name == kReplacing || name == kReplaced;
}

bool is_weight_file(std::string_view name) {
    if (name == "model.safetensors" || name == "model.safetensors.index.json") return true;
    constexpr std::string_view kShard = "model-#####-of-#####.safetensors";
    const auto fits = [](char c, char wanted) {
        return wanted == '#' ? std::isdigit(static_cast<unsigned char>(c)) != 0 : c == wanted;
    };
    return std::ranges::equal(name, kShard, fits);
}

std::string exchange(const fs::path& directory) {
    Exchange exchange(directory);
    exchange.begin();
    try {
        exchange.move_files();
    } catch (...) {
        try {
            exchange.undo();
        } catch (const Error& error) {
            throw Error(
                ErrorCode::io,
                std::string(error.message()) + "; the old files and the new ones are kept in hidden directories",
                Remedy::resume_or_overwrite);
        }
        throw;
    }
    return exchange.remove_old();
}

bool exchange_began(const fs::path& directory) {
    constexpr std::array<std::string_view, 3> kNames = {kReady, kReplacing, kReplaced};
    return std::ranges::any_of(kNames, [&](std::string_view name) { return files::exists(directory / name); });
}

void finish_exchange(const fs::path& directory) {
    if (!exchange_began(directory)) return;
    Exchange exchange(directory);
    if (files::exists(directory / kReady)) exchange.move_files();
    const std::string left = exchange.remove_old();
    if (!left.empty()) throw Error(ErrorCode::io, left);
}

}  // namespace mha2mla
