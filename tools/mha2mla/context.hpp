#pragma once
/// What every subcommand has at hand: logging, progress and interruption. Results go to stdout, all this to stderr.

#include <chrono>
#include <cstdint>
#include <string>

#include "mha2mla/observer.hpp"

namespace mha2mla::tool {

/// Turns the library's reports into log lines on stderr.
class LogObserver final : public Observer {
public:
    void progress(std::string_view stage, std::int64_t done, std::int64_t total) override;
    void warn(const std::string& message) override;
    [[nodiscard]] bool cancelled() const override;

private:
    std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

/// From now on the first Ctrl-C (or SIGTERM) asks the running operation to stop, the second kills.
void install_interrupt_handler();

struct Context {
    LogObserver observer;
    int threads = 0;               // 0: all
    std::uint64_t max_memory = 0;  // bytes that a run may take; 0: half of what is available
};

/// Exit code of an error: 2 for usage, 130 for an interruption, 1 for all others.
[[nodiscard]] int exit_code(ErrorCode code);

}  // namespace mha2mla::tool
