#include "training_log.hpp"

#include <cmath>
#include <fstream>
#include <sstream>

#include "../support/json_file.hpp"
#include "mha2mla/atomic_file.hpp"
#include "mha2mla/error.hpp"

namespace mha2mla {
namespace {

using Json = nlohmann::ordered_json;

}  // namespace

void TrainingLog::begin() {
    text_.clear();
    write_file_atomically(file_, text_);
}

void TrainingLog::restore(const std::string& text) {
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) {
        const Json json = parse_json<Json>(line);
        if (!json.contains("nll")) continue;
        const Json& nll = json.at("nll");  // null if it was not finite
        evaluations_.push_back({json.at("step"), nll.is_number() ? nll.get<double>() : std::nan("")});
    }
    text_ = text;
    write_file_atomically(file_, text_);
}

void TrainingLog::add(const StepReport& step) {
    Json line = {{"step", step.step},
                 {"loss", step.loss},
                 {"gradient_norm", step.gradient_norm},
                 {"learning_rate", step.rate},
                 {"tokens", step.tokens},
                 {"tokens_per_second", static_cast<double>(step.tokens) / step.seconds}};
    if (step.next_token != 0) line["next_token_loss"] = step.next_token;
    if (step.teacher != 0) line["teacher_kl"] = step.teacher;
    if (step.hidden != 0) line["hidden_loss"] = step.hidden;
    append(line);
}

void TrainingLog::add(const Evaluated& evaluated) {
    append({{"step", evaluated.step}, {"nll", evaluated.nll}});
    evaluations_.push_back(evaluated);
}

void TrainingLog::append(const nlohmann::ordered_json& line) {
    const std::string text = line.dump() + "\n";
    text_ += text;
    std::ofstream out(file_, std::ios::app);
    out << text;
    out.close();
    if (!out) throw Error(ErrorCode::io, file_.string() + ": cannot write; is the disk full?");
}

}  // namespace mha2mla
