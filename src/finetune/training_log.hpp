#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "mha2mla/finetune.hpp"

namespace mha2mla {

/// The NLL of the evaluation sequences after so many steps.
struct Evaluated {
    std::int64_t step = 0;
    double nll = 0;
};

/// The log of a training run, one JSON object a line (docs/formats.md), flushed line by line.
class TrainingLog {
public:
    explicit TrainingLog(std::filesystem::path file) : file_(std::move(file)) {}
    /// Empties it.
    void begin();
    /// Begins with the text() that there was at some step, for a run that goes on behind it.
    void restore(const std::string& text);
    void add(const StepReport& step);
    void add(const Evaluated& evaluated);
    [[nodiscard]] const std::vector<Evaluated>& evaluations() const { return evaluations_; }
    /// All lines.
    [[nodiscard]] const std::string& text() const { return text_; }

private:
    void append(const nlohmann::ordered_json& line);
    std::filesystem::path file_;
    std::string text_;
    std::vector<Evaluated> evaluations_;
};

}  // namespace mha2mla
