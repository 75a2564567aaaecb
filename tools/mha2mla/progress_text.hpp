#pragma once
/// Progress as one line of text. Pure functions of their arguments; context.cpp decides when and where it is shown.

#include <chrono>
#include <cstdint>
#include <span>
#include <string>

namespace mha2mla::tool {

/// A stage of the library (Observer::progress) that is under way.
struct Stage {
    using Clock = std::chrono::steady_clock;
    std::string name;
    std::int64_t done = 0, total = 0;
    std::int64_t first = 0;     // `done` when it began, so that a resumed stage's rate is not flattered
    Clock::time_point began{};  // and when that was

    [[nodiscard]] int percent() const;
    /// Steps per second; 0 as long as nothing can be said.
    [[nodiscard]] double rate(Clock::time_point now) const;
};

/// "0:17", "1:02:03", "3 d 4 h".
[[nodiscard]] std::string duration_text(double seconds);

/// "12 of 32 (37%), 1.2/s, 0:17 left": for a log.
[[nodiscard]] std::string progress_sentence(const Stage& stage, Stage::Clock::time_point now);

/// All stages side by side in at most `columns` characters: with a bar, counts, rate and time left where there is room,
/// down to bare percentages where there is not.
[[nodiscard]] std::string progress_line(std::span<const Stage> stages, Stage::Clock::time_point now,
                                        std::size_t columns);

}  // namespace mha2mla::tool
