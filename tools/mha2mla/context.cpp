#include "context.hpp"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <csignal>

namespace mha2mla::tool {
namespace {

constexpr Stage::Clock::duration kDrawInterval = std::chrono::milliseconds(100);
// Intervals between messages on one stage: no messages for short runs, and few for long ones.
constexpr Stage::Clock::duration kFirstInterval = std::chrono::seconds(5);
constexpr Stage::Clock::duration kLongestInterval = std::chrono::minutes(1);

// The only state that the signal handler may access.
volatile std::sig_atomic_t interrupted = 0;

extern "C" void on_interrupt(int signal) {
    interrupted = 1;
    std::signal(signal, SIG_DFL);
}

}  // namespace

void install_interrupt_handler() {
    // A shell starts jobs in the background, and nohup or a supervisor its own, with signals that they shall ignore.
    for (const int signal : {SIGINT, SIGTERM}) {
        if (std::signal(signal, on_interrupt) == SIG_IGN) std::signal(signal, SIG_IGN);
    }
    // Writes report a file-size limit as an error, and stdout reports a closed pipe.
    std::signal(SIGXFSZ, SIG_IGN);
    std::signal(SIGPIPE, SIG_IGN);
}

LogObserver::Shown& LogObserver::find_or_begin(std::string_view name, std::int64_t done, Stage::Clock::time_point now) {
    const auto it =
        std::find_if(stages_.begin(), stages_.end(), [&](const Shown& shown) { return shown.stage.name == name; });
    if (it != stages_.end() && done >= it->stage.done) return *it;
    if (it != stages_.end()) stages_.erase(it);  // the stage begins again
    Shown shown;
    shown.stage.name = name;
    shown.stage.first = done;
    shown.stage.began = now;
    shown.interval = kFirstInterval;
    shown.next_message = now + kFirstInterval;
    spdlog::debug("{}: begins", name);
    return stages_.emplace_back(std::move(shown));
}

void LogObserver::draw(Stage::Clock::time_point now) {
    if (!shows_status_line() || now < next_draw_) return;
    next_draw_ = now + kDrawInterval;
    std::vector<Stage> stages;
    for (const auto& shown : stages_) stages.push_back(shown.stage);
    line_->show(progress_line(stages, now, line_->columns()));
}

void LogObserver::progress(std::string_view stage, std::int64_t done, std::int64_t total) {
    const auto now = Stage::Clock::now();
    Shown& shown = find_or_begin(stage, done, now);
    shown.stage.done = done;
    shown.stage.total = total;
    if (done >= total) {
        const double seconds = std::chrono::duration<double>(now - shown.stage.began).count();
        spdlog::debug("{}: {} done in {:.1f} s", stage, total, seconds);
        stages_.erase(stages_.begin() + (&shown - stages_.data()));
        if (stages_.empty()) return finish();
    } else if (now >= shown.next_message) {
        log_progress(shown.stage.name + ": " + progress_sentence(shown.stage, now));
        shown.interval = std::min(2 * shown.interval, kLongestInterval);
        shown.next_message = now + shown.interval;
    }
    draw(now);
}

void LogObserver::finish() {
    stages_.clear();
    line_->hide();
    next_draw_ = {};
}

void LogObserver::warn(const std::string& message) {
    if (warned_.insert(message).second) spdlog::warn("{}", message);
}

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
