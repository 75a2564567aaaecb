#pragma once
/// Where messages go: stderr, as text or JSON, and a log file. Messages themselves are given to spdlog.

#include <CLI/CLI.hpp>
#include <array>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

namespace mha2mla::tool {

/// The line of the terminal below all messages, where progress is shown. Nothing where stderr is not a terminal.
class StatusLine {
public:
    StatusLine();
    StatusLine(const StatusLine&) = delete;
    StatusLine& operator=(const StatusLine&) = delete;
    StatusLine(StatusLine&&) = delete;
    StatusLine& operator=(StatusLine&&) = delete;
    ~StatusLine() { hide(); }

    [[nodiscard]] bool usable() const { return usable_; }
    /// Characters that fit now; people change the width of their windows.
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

/// -v, -q, --log-file and --log-format.
struct LogOptions {
    int verbose = 0, quiet = 0;
    std::filesystem::path file;
    LogFormat format = LogFormat::text;
};
/// For the program and again for every subcommand, so that they may stand on either side of its name.
void add_log_options(CLI::App& app, LogOptions& options);

/// Messages to stderr, before options are known.
void start_logging(const std::shared_ptr<StatusLine>& line);
/// As the options say. @throws Error{io} if the log file cannot be opened.
void start_logging(const LogOptions& options, const std::shared_ptr<StatusLine>& line);
/// A message about progress: to the log file alone while the status line shows it, otherwise as any other message.
void log_progress(const std::string& message);
/// Whether progress belongs on the status line.
[[nodiscard]] bool shows_status_line();

}  // namespace mha2mla::tool
