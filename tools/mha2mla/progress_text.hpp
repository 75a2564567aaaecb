#pragma once
/// Progress as one line of text: pure functions. context.cpp decides when and where the text is shown.

#include <chrono>
#include <cstdint>
#include <span>
#include <string>

namespace mha2mla::tool {

/// A running stage of the library (Observer::progress).
struct Stage {
    using Clock = std::chrono::steady_clock;
    std::string name;
    std::int64_t done = 0, total = 0;
    std::int64_t first = 0;     // `done` at the start, so that the rate of a resumed stage is correct
    Clock::time_point began{};  // time of the start

    [[nodiscard]] int percent() const;
    /// Steps per second; 0 while it is unknown.
    [[nodiscard]] double rate(Clock::time_point now) const;
};

/// A duration as text: "0:17", "1:02:03", "3 d 4 h".
[[nodiscard]] std::string duration_text(double seconds);

/// The progress of a stage for a log: "12 of 32 (37%), 1.2/s, 0:17 left".
[[nodiscard]] std::string progress_sentence(const Stage& stage, Stage::Clock::time_point now);

/// All stages in one line of at most `columns` characters: with a bar, counts, rate and remaining time if there is
/// room, otherwise with fewer details, down to percentages.
[[nodiscard]] std::string progress_line(std::span<const Stage> stages, Stage::Clock::time_point now,
                                        std::size_t columns);

}  // namespace mha2mla::tool
