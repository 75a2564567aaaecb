#pragma once
/// Destinations of messages: stderr, as text or JSON, and a log file. Messages are passed to spdlog.

#include <CLI/CLI.hpp>
#include <array>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

namespace mha2mla::tool {

/// The line of the terminal below all messages, which shows progress. It does nothing if stderr is not a terminal.
class StatusLine {
public:
    StatusLine();
    StatusLine(const StatusLine&) = delete;
    StatusLine& operator=(const StatusLine&) = delete;
    StatusLine(StatusLine&&) = delete;
    StatusLine& operator=(StatusLine&&) = delete;
    ~StatusLine() { hide(); }

    [[nodiscard]] bool usable() const { return usable_; }
    /// The current width in characters, which may change at any time.
    [[nodiscard]] std::size_t columns() const;
    void show(const std::string& text);
    void hide();

private:
    bool usable_;
    std::size_t shown_ = 0;  // characters
};

enum class LogFormat : std::uint8_t { text, json };
struct LogFormatRow {
    LogFormat format;
    std::string_view name;
};
inline constexpr std::array<LogFormatRow, 2> kLogFormats = {{{LogFormat::text, "text"}, {LogFormat::json, "json"}}};

/// The options -v, -q, --log-file and --log-format.
struct LogOptions {
    int verbose = 0, quiet = 0;
    std::filesystem::path file;
    LogFormat format = LogFormat::text;
};
/// Adds the options to the program or a subcommand; both have them, so that they may be given before or after its name.
void add_log_options(CLI::App& app, LogOptions& options);

/// Sends messages to stderr, before the options are parsed.
void start_logging(const std::shared_ptr<StatusLine>& line);
/// Sends messages to the destinations of the options. @throws Error{io} if the log file cannot be opened.
void start_logging(const LogOptions& options, const std::shared_ptr<StatusLine>& line);
/// Writes a message about progress: only to the log file while the status line shows it, otherwise as any other
/// message.
void log_progress(const std::string& message);
/// Whether the status line shows progress.
[[nodiscard]] bool shows_status_line();

}  // namespace mha2mla::tool
