#include "context.hpp"

#include <spdlog/spdlog.h>

#include <csignal>

namespace mha2mla::tool {
namespace {

// A signal handler can reach nothing but this.
volatile std::sig_atomic_t interrupted = 0;

extern "C" void on_interrupt(int signal) {
    interrupted = 1;
    std::signal(signal, SIG_DFL);
}

}  // namespace

void install_interrupt_handler() {
    std::signal(SIGINT, on_interrupt);
    std::signal(SIGTERM, on_interrupt);
    // A full disk or a file-size limit is an error that a write reports, and a closed pipe one that stdout reports.
    std::signal(SIGXFSZ, SIG_IGN);
    std::signal(SIGPIPE, SIG_IGN);
}

void LogObserver::progress(std::string_view stage, std::int64_t done, std::int64_t total) {
    constexpr std::chrono::seconds kInterval(5);  // short runs stay quiet, long ones show that they are alive
    const auto now = std::chrono::steady_clock::now();
    if (now - last_ < kInterval) return;
    last_ = now;
    spdlog::info("{}: {} of {}", stage, done, total);
}

void LogObserver::warn(const std::string& message) { spdlog::warn("{}", message); }

bool LogObserver::cancelled() const { return interrupted != 0; }

int exit_code(ErrorCode code) {
    switch (code) {
        case ErrorCode::usage:
            return 2;
        case ErrorCode::interrupted:
            return 130;
        default:
            return 1;
    }
}

}  // namespace mha2mla::tool
