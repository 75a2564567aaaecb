#pragma once
/// The context of every subcommand: messages, progress and interruption. Results are written to stdout, everything else
/// to stderr.

#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "logging.hpp"
#include "mha2mla/observer.hpp"
#include "progress_text.hpp"

namespace mha2mla::tool {

/// Shows the library's reports: progress on the status line of a terminal, or otherwise as a message at intervals.
class LogObserver final : public Observer {
public:
    explicit LogObserver(std::shared_ptr<StatusLine> line) : line_(std::move(line)) {}
    void progress(std::string_view stage, std::int64_t done, std::int64_t total) override;
    void warn(const std::string& message) override;
    [[nodiscard]] bool cancelled() const override;
    /// Removes the stages of an operation that ended and clears the status line.
    void finish();

private:
    struct Shown {
        Stage stage;
        Stage::Clock::time_point next_message{};
        Stage::Clock::duration interval{};  // between messages
    };
    Shown& find_or_begin(std::string_view name, std::int64_t done, Stage::Clock::time_point now);
    void draw(Stage::Clock::time_point now);

    std::shared_ptr<StatusLine> line_;
    std::vector<Shown> stages_;  // running stages, in the order in which they began
    Stage::Clock::time_point next_draw_{};
    std::set<std::string> warned_;  // warnings already shown; each is shown once
};

/// Installs the signal handler: the first Ctrl-C (or SIGTERM) asks the running operation to stop, the second kills the
/// process.
void install_interrupt_handler();

struct Context {
    std::shared_ptr<StatusLine> line = std::make_shared<StatusLine>();
    LogObserver observer{line};
    LogOptions log;
    int threads = 0;                      // 0: all
    bool ignore_unused = false;           // see OpenOptions
    std::set<std::string> checked_texts;  // of evaluations, by what they depend on
    std::uint64_t max_memory = 0;         // largest number of bytes for a run; 0: half of the available memory
};

/// Exit code of an error: 2 for usage, 130 for an interruption, 1 for all others.
[[nodiscard]] int exit_code(ErrorCode code);

}  // namespace mha2mla::tool
