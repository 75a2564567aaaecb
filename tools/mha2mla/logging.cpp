#include "logging.hpp"

#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/base_sink.h>
#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <mutex>
#include <nlohmann/json.hpp>

#include "command_doc.hpp"
#include "mha2mla/error.hpp"
#include "mha2mla/printable.hpp"
#include "options.hpp"
#include "output.hpp"

namespace mha2mla::tool {
namespace {

constexpr std::size_t kUsualColumns = 80;
constexpr const char* kTextPattern = "%^%l%$: %v";
constexpr const char* kFilePattern = "%Y-%m-%dT%H:%M:%S%z %l: %v";

bool is_set(const char* variable) {
    const char* value = std::getenv(variable);
    return value != nullptr && *value != '\0';
}

bool is_terminal() {
    const char* term = std::getenv("TERM");
    return ::isatty(STDERR_FILENO) == 1 && term != nullptr && std::string_view(term) != "dumb";
}

/// Writes one object per line: time (UTC), level, message.
class JsonFormatter final : public spdlog::formatter {
public:
    void format(const spdlog::details::log_msg& message, spdlog::memory_buf_t& out) override {
        const auto level = spdlog::level::to_string_view(message.level);
        const auto milliseconds =
            std::chrono::duration_cast<std::chrono::milliseconds>(message.time.time_since_epoch()).count();
        const std::time_t seconds = milliseconds / 1000;
        std::tm utc{};
        (void)::gmtime_r(&seconds, &utc);
        char date[32], time[48];
        (void)std::strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &utc);
        (void)std::snprintf(time, sizeof time, "%s.%03dZ", date, static_cast<int>(milliseconds % 1000));
        nlohmann::ordered_json json;
        json["time"] = time;
        json["level"] = std::string(level.data(), level.size());
        json["message"] = std::string(message.payload.data(), message.payload.size());
        const std::string line = json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + '\n';
        out.append(line.data(), line.data() + line.size());
    }
    [[nodiscard]] std::unique_ptr<spdlog::formatter> clone() const override {
        return std::make_unique<JsonFormatter>();
    }
};

constexpr std::size_t kLongestMessage = 8000;

/// Formats messages whose text is printable: it may come from files and arguments.
class CleanFormatter final : public spdlog::formatter {
public:
    explicit CleanFormatter(std::unique_ptr<spdlog::formatter> inner) : inner_(std::move(inner)) {}
    void format(const spdlog::details::log_msg& message, spdlog::memory_buf_t& out) override {
        const std::string text =
            printable(shortened({message.payload.data(), message.payload.size()}, kLongestMessage));
        spdlog::details::log_msg clean = message;
        clean.payload = text;
        inner_->format(clean, out);
        message.color_range_start = clean.color_range_start;
        message.color_range_end = clean.color_range_end;
    }
    [[nodiscard]] std::unique_ptr<spdlog::formatter> clone() const override {
        return std::make_unique<CleanFormatter>(inner_->clone());
    }

private:
    std::unique_ptr<spdlog::formatter> inner_;
};

/// Writes to stderr above the status line, with coloured levels if the terminal supports it.
class StderrSink final : public spdlog::sinks::base_sink<std::mutex> {
public:
    explicit StderrSink(std::shared_ptr<StatusLine> line) : line_(std::move(line)) {}

private:
    void sink_it_(const spdlog::details::log_msg& message) override {
        spdlog::memory_buf_t text;
        formatter_->format(message, text);
        std::string line(text.data(), text.size());
        if (coloured_ && message.color_range_end > message.color_range_start) {
            line.insert(message.color_range_end, "\x1b[0m");
            line.insert(message.color_range_start, colour(message.level));
        }
        line_->hide();
        (void)std::fwrite(line.data(), 1, line.size(), stderr);
    }
    void flush_() override { (void)std::fflush(stderr); }

    static const char* colour(spdlog::level::level_enum level) {
        if (level >= spdlog::level::err) return "\x1b[1;31m";
        if (level == spdlog::level::warn) return "\x1b[1;33m";
        return level == spdlog::level::info ? "\x1b[32m" : "\x1b[36m";
    }

    std::shared_ptr<StatusLine> line_;
    bool coloured_ = is_terminal() && !is_set("NO_COLOR");
};

// The state of log_progress() besides spdlog's default logger.
std::shared_ptr<spdlog::logger> file_logger;
bool status_line_shows = false;

void set_format(spdlog::sinks::sink& sink, LogFormat format, const char* pattern) {
    std::unique_ptr<spdlog::formatter> inner;
    if (format == LogFormat::json) {
        inner = std::make_unique<JsonFormatter>();
    } else {
        inner = std::make_unique<spdlog::pattern_formatter>(pattern);
    }
    sink.set_formatter(std::make_unique<CleanFormatter>(std::move(inner)));
}

spdlog::level::level_enum level_of(const LogOptions& options) {
    const int steps = options.verbose - options.quiet;
    if (steps > 0) return spdlog::level::debug;
    if (steps == 0) return spdlog::level::info;
    return steps == -1 ? spdlog::level::warn : spdlog::level::err;
}

}  // namespace

StatusLine::StatusLine() : usable_(is_terminal()) {}

std::size_t StatusLine::columns() const {
    // With text in the last column some terminals begin a new line.
    return terminal_columns(STDERR_FILENO).value_or(kUsualColumns) - 1;
}

void StatusLine::show(const std::string& text) {
    if (!usable_) return;
    (void)std::fprintf(stderr, "\r%s\x1b[K", text.c_str());
    (void)std::fflush(stderr);
    shown_ = text.size();
}

void StatusLine::hide() {
    if (shown_ == 0) return;
    (void)std::fputs("\r\x1b[K", stderr);
    (void)std::fflush(stderr);
    shown_ = 0;
}

void add_log_options(CLI::App& app, LogOptions& options) {
    app.add_flag("-v,--verbose", options.verbose, "Print more messages: what is done, and how long it took")
        ->group(kMessages);
    app.add_flag("-q,--quiet", options.quiet, "Only warnings and errors, no progress; -qq: only errors")
        ->group(kMessages);
    app.add_option("--log-file", options.file, "Also append messages to FILE, with times; not affected by -q")
        ->type_name("FILE")
        ->group(kMessages);
    add_choice(app, "--log-format", options.format, kLogFormats, &LogFormatRow::format,
               "Messages as text, or one JSON object a line with time, level and message")
        ->group(kMessages);
}

namespace {

/// A log may be continued; any other file is a user's. @throws Error{io}
void refuse_other_file(const std::filesystem::path& path) {
    std::error_code ignored;
    if (!std::filesystem::is_regular_file(path, ignored)) return;
    std::array<char, 9> start{};
    std::ifstream(path, std::ios::binary).read(start.data(), start.size());
    const std::string_view text(start.data(), start.size());
    const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
    const bool dated = std::all_of(text.begin(), text.begin() + 4, is_digit) && text[4] == '-';  // kFilePattern
    if (std::filesystem::file_size(path, ignored) == 0 || dated || text.starts_with("{\"time\"")) return;
    throw Error(ErrorCode::io, "--log-file " + path.string() +
                                   ": exists, and is no log of this program; "
                                   "choose another name");
}

}  // namespace

void start_logging(const std::shared_ptr<StatusLine>& line) { start_logging(LogOptions{}, line); }

void start_logging(const LogOptions& options, const std::shared_ptr<StatusLine>& line) {
    auto to_stderr = std::make_shared<StderrSink>(line);
    set_format(*to_stderr, options.format, kTextPattern);
    to_stderr->set_level(level_of(options));
    auto logger = std::make_shared<spdlog::logger>("mha2mla", to_stderr);
    file_logger.reset();
    if (!options.file.empty()) {
        refuse_other_file(options.file);
        try {
            auto to_file = std::make_shared<spdlog::sinks::basic_file_sink_mt>(options.file.string());
            set_format(*to_file, options.format, kFilePattern);
            file_logger = std::make_shared<spdlog::logger>("log file", to_file);
            file_logger->flush_on(spdlog::level::trace);
            to_file->set_level(std::min(level_of(options), spdlog::level::info));
            file_logger->set_level(spdlog::level::trace);
            logger->sinks().push_back(to_file);
        } catch (const spdlog::spdlog_ex& error) {
            throw Error(ErrorCode::io, "--log-file: " + std::string(error.what()));
        }
    }
    logger->set_level(spdlog::level::trace);
    logger->flush_on(spdlog::level::trace);
    spdlog::set_default_logger(logger);
    status_line_shows = line->usable() && options.format == LogFormat::text && level_of(options) <= spdlog::level::info;
}

bool shows_status_line() { return status_line_shows; }

void log_progress(const std::string& message) {
    if (!status_line_shows) {
        spdlog::info("{}", message);
    } else if (file_logger != nullptr) {
        file_logger->info("{}", message);
    }
}

}  // namespace mha2mla::tool
