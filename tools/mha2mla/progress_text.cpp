#include "progress_text.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace mha2mla::tool {
namespace {

/// The levels of detail of a stage, most detailed first.
enum class Detail : std::uint8_t { bar, rate, counts, time, percent, bare };
constexpr Detail kDetails[] = {Detail::bar, Detail::rate, Detail::counts, Detail::time, Detail::percent, Detail::bare};
constexpr int kBarWidth = 20;

std::string rate_text(double rate) {
    char text[32];
    if (rate >= 1) {
        (void)std::snprintf(text, sizeof text, "%.*f/s", rate < 10 ? 1 : 0, rate);
    } else {
        (void)std::snprintf(text, sizeof text, "%.1f s each", 1 / rate);
    }
    return text;
}

std::string time_left(const Stage& stage, double rate) {
    return duration_text(static_cast<double>(stage.total - stage.done) / rate);
}

std::string bar(int percent) {
    const auto full = static_cast<std::size_t>(percent * kBarWidth / 100);
    std::string text = "[" + std::string(full, '=');
    if (full < kBarWidth) text += '>' + std::string(kBarWidth - full - 1, ' ');
    return text + "]";
}

std::string stage_text(const Stage& stage, Stage::Clock::time_point now, Detail detail) {
    const std::string percent = std::to_string(stage.percent()) + "%";
    if (detail == Detail::bare) return percent;
    const double rate = stage.rate(now);
    std::string text = stage.name + " ";
    if (detail == Detail::bar) text += bar(stage.percent()) + " ";
    text += percent;
    if (detail <= Detail::counts) text += " " + std::to_string(stage.done) + "/" + std::to_string(stage.total);
    if (rate <= 0 || detail == Detail::percent) return text;
    if (detail <= Detail::rate) text += " " + rate_text(rate);
    return text + (detail <= Detail::counts ? " ETA " : " ") + time_left(stage, rate);
}

}  // namespace

int Stage::percent() const {
    if (total <= 0) return 100;
    return static_cast<int>(100.0 * static_cast<double>(std::clamp<std::int64_t>(done, 0, total)) /
                            static_cast<double>(total));
}

double Stage::rate(Clock::time_point now) const {
    const double seconds = std::chrono::duration<double>(now - began).count();
    return done > first && seconds > 0 ? static_cast<double>(done - first) / seconds : 0;
}

std::string duration_text(double seconds) {
    const auto all = static_cast<long long>(std::ceil(std::clamp(seconds, 0.0, 1e12)));
    const long long s = all % 60, m = all / 60 % 60, h = all / 3600 % 24, d = all / 86400;
    char text[48];
    if (d > 0) {
        (void)std::snprintf(text, sizeof text, "%lld d %lld h", d, h);
    } else if (h > 0) {
        (void)std::snprintf(text, sizeof text, "%lld:%02lld:%02lld", h, m, s);
    } else {
        (void)std::snprintf(text, sizeof text, "%lld:%02lld", m, s);
    }
    return text;
}

std::string progress_sentence(const Stage& stage, Stage::Clock::time_point now) {
    std::string text = std::to_string(stage.done) + " of " + std::to_string(stage.total) + " (" +
                       std::to_string(stage.percent()) + "%)";
    const double rate = stage.rate(now);
    if (rate > 0) text += ", " + rate_text(rate) + ", " + time_left(stage, rate) + " left";
    return text;
}

std::string progress_line(std::span<const Stage> stages, Stage::Clock::time_point now, std::size_t columns) {
    std::string text;
    for (const Detail detail : kDetails) {
        text.clear();
        for (const Stage& stage : stages) text += (text.empty() ? "" : "  ") + stage_text(stage, now, detail);
        if (text.size() <= columns) return text;
    }
    return text.substr(0, columns);
}

}  // namespace mha2mla::tool
