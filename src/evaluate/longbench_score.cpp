#include <cstdio>
#include <cstdlib>
#include <string>

#include "mha2mla/error.hpp"
#include "mha2mla/longbench.hpp"

namespace mha2mla {

double LongbenchTaskScore::percent() const {
    char text[64];  // Python's round() rounds the decimal expansion, as printf does
    (void)std::snprintf(text, sizeof text, "%.2f", 100 * sum / static_cast<double>(samples));
    return std::strtod(text, nullptr);
}

double LongbenchScores::average() const {
    double sum = 0;
    for (const auto& task : tasks) sum += 100 * task.mean();
    return sum / static_cast<double>(tasks.size());
}

LongbenchScores score_longbench(std::span<const LongbenchPrediction> predictions, const Observer& observer) {
    if (predictions.empty()) throw Error(ErrorCode::usage, "there are no predictions");
    LongbenchScores result;
    for (const auto& prediction : predictions) {
        if (observer.cancelled()) throw Error(ErrorCode::interrupted, "interrupted");
        try {
            result.scores.push_back(longbench_score(prediction));
        } catch (const Error& error) {
            throw error.with_prefix("prediction " + std::to_string(result.scores.size() + 1) + " (" +
                                    std::string(prediction.task->name) + "): ");
        }
    }
    for (const auto& task : longbench_tasks()) {
        LongbenchTaskScore score{&task, 0, 0};
        for (std::size_t i = 0; i < predictions.size(); ++i) {
            if (predictions[i].task != &task) continue;
            ++score.samples;
            score.sum += result.scores[i];
        }
        if (score.samples > 0) result.tasks.push_back(score);
    }
    return result;
}

}  // namespace mha2mla
