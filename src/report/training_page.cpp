#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <nlohmann/json.hpp>

#include "../support/json_file.hpp"
#include "formats.hpp"
#include "mha2mla/error.hpp"
#include "mha2mla/mapped_file.hpp"
#include "page_files.hpp"

namespace mha2mla {
namespace {

using Points = TrainingCurves::Points;

/// More are those of a damaged log; sums and differences of such numbers are finite.
constexpr double kMostTokens = 1e30;

/// A class of page.css that gives a run its colour.
std::string colour(std::size_t run) { return "class=\"run" + std::to_string(run % 5) + "\""; }

std::string number(double value) {
    char text[64];
    (void)std::snprintf(text, sizeof text, "%.4g", value);
    return text;
}

/// Where a figure lies in its picture.
struct Frame {
    double left = 64, top = 10, width = 640, height = 240;
    double x_most = 1, y_least = 0, y_most = 1;

    [[nodiscard]] std::string x(double value) const { return number(left + width * (value / x_most)); }
    [[nodiscard]] std::string y(double value) const {
        return number(top + height * ((y_most / 2 - value / 2) / (y_most / 2 - y_least / 2)));  // without overflow
    }
};

Frame frame_around(std::span<const Points* const> curves) {
    Frame frame;
    frame.x_most = 0;
    frame.y_least = std::numeric_limits<double>::infinity();
    frame.y_most = -frame.y_least;
    for (const Points* points : curves) {
        for (const auto& [x, y] : *points) {
            frame.x_most = std::max(frame.x_most, x);
            frame.y_least = std::min(frame.y_least, y);
            frame.y_most = std::max(frame.y_most, y);
        }
    }
    if (!(frame.x_most > 0)) frame.x_most = 1;
    // What differs by rounding alone is one value.
    const double least = 1e-9 * std::max(std::abs(frame.y_least), std::abs(frame.y_most));
    if (!(frame.y_most / 2 - frame.y_least / 2 > least)) {
        const double margin = std::max(least, 0.5);
        frame.y_least -= margin;
        frame.y_most += margin;
    }
    return frame;
}

/// About five round values between two.
std::vector<double> ticks(double low, double high) {
    const double raw = high / 5 - low / 5, unit = std::pow(10, std::floor(std::log10(raw)));
    double step = 10 * unit;
    for (const double s : {5.0, 2.0, 1.0}) {
        if (s * unit >= raw * (1 - 1e-9)) step = s * unit;
    }
    std::vector<double> values;
    constexpr int kMost = 12;
    const double first = std::ceil(low / step - 1e-9) * step;
    for (int i = 0; i < kMost && first + i * step <= high + step * 1e-9; ++i) values.push_back(first + i * step);
    return values;
}

std::string text_at(const std::string& x, const std::string& y, const std::string& anchor, const std::string& words) {
    return "<text x=\"" + x + "\" y=\"" + y + "\" text-anchor=\"" + anchor + "\">" + words + "</text>";
}

std::string axes(const Frame& frame) {
    std::string out;
    const std::string bottom = number(frame.top + frame.height);
    for (const double v : ticks(frame.y_least, frame.y_most)) {
        out += "<line x1=\"" + number(frame.left) + "\" x2=\"" + number(frame.left + frame.width) + "\" y1=\"" +
               frame.y(v) + "\" y2=\"" + frame.y(v) + "\" stroke=\"currentColor\" stroke-opacity=\"0.15\"/>";
        out += text_at(number(frame.left - 6), frame.y(v), "end", number(v));
    }
    for (const double v : ticks(0, frame.x_most)) {
        out += text_at(frame.x(v), number(frame.top + frame.height + 18), "middle", number(v));
    }
    return out +
           text_at(number(frame.left + frame.width / 2), number(frame.top + frame.height + 36), "middle", "tokens");
}

/// One figure with a line for each run that has points.
std::string figure(const std::string& title, std::span<const TrainingCurves> runs, Points TrainingCurves::*member) {
    std::vector<const Points*> curves;
    for (const TrainingCurves& run : runs) curves.push_back(&(run.*member));
    if (std::ranges::all_of(curves, [](const Points* points) { return points->empty(); })) return "";
    const Frame frame = frame_around(curves);
    std::string body = axes(frame);
    for (std::size_t i = 0; i < curves.size(); ++i) {
        std::string line;
        for (const auto& [x, y] : *curves[i]) line += frame.x(x) + "," + frame.y(y) + " ";
        if (line.empty()) continue;
        body += "<polyline fill=\"none\" stroke-width=\"1.5\" " + colour(i) + " points=\"" + line + "\"/>";
    }
    return "<section><h2>" + title +
           "</h2>\n<svg viewBox=\"0 0 720 300\" width=\"720\" height=\"300\" role=\"img\" aria-label=\"" + title +
           "\">" + body + "</svg></section>\n";
}

std::string run_rows(std::span<const TrainingCurves> runs) {
    std::string out;
    for (std::size_t i = 0; i < runs.size(); ++i) {
        const TrainingCurves& run = runs[i];
        const auto last = [](const Points& points) { return points.empty() ? "–" : number(points.back().second); };
        const auto first = [](const Points& points) { return points.empty() ? "–" : number(points.front().second); };
        out += "<tr><th scope=\"row\"><span " + colour(i) + ">■</span> " + escape_html(run.name) + "</th><td>" +
               std::to_string(run.loss.size()) + "</td><td>" +
               (run.loss.empty() ? "0" : number(run.loss.back().first)) + "</td><td>" + first(run.nll) + "</td><td>" +
               last(run.nll) + "</td><td>" + last(run.loss) + "</td><td>" + number(run.tokens_per_second) +
               "</td></tr>\n";
    }
    return out;
}

}  // namespace

TrainingCurves read_training_log(const std::filesystem::path& path) {
    const MappedFile file(path);
    std::string_view rest(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
    TrainingCurves curves;
    curves.name =
        path.parent_path().empty() ? path.string() : (path.parent_path().filename() / path.filename()).string();
    std::vector<double> speeds;
    double tokens = 0;
    for (std::int64_t line_number = 1; !rest.empty(); ++line_number) {
        const std::string_view line = rest.substr(0, rest.find('\n'));
        rest.remove_prefix(std::min(line.size() + 1, rest.size()));
        if (line.empty()) continue;
        const auto json = parse_json(line);
        const auto value = [&](const char* key) {
            const auto found = json.is_object() ? json.find(key) : json.end();
            const double number = found != json.end() && found->is_number() ? found->get<double>() : std::nan("");
            if (std::isfinite(number)) return number;
            throw Error(ErrorCode::format, path.string() + ": line " + std::to_string(line_number) +
                                               " is not of a training log: no number '" + key + "'");
        };
        if (json.is_object() && json.contains("nll")) {
            curves.nll.emplace_back(tokens, value("nll"));
            continue;
        }
        tokens = std::min(tokens + std::max(value("tokens"), 0.0), kMostTokens);
        curves.loss.emplace_back(tokens, value("loss"));
        curves.gradient_norm.emplace_back(tokens, value("gradient_norm"));
        curves.learning_rate.emplace_back(tokens, value("learning_rate"));
        speeds.push_back(value("tokens_per_second"));
    }
    if (curves.loss.empty() && curves.nll.empty()) {
        throw Error(ErrorCode::format, path.string() + ": holds no step of a training run");
    }
    if (!speeds.empty()) {
        std::nth_element(speeds.begin(), speeds.begin() + std::ssize(speeds) / 2, speeds.end());
        curves.tokens_per_second = speeds[speeds.size() / 2];
    }
    return curves;
}

std::string training_html(std::span<const TrainingCurves> runs) {
    const std::string title = runs.size() == 1 ? escape_html(runs.front().name) : "training runs";
    std::string page =
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>mha2mla report: " + title +
        "</title>\n<style>" + page_file_page_css() +
        "svg text{font-size:12px;fill:currentColor}</style></head>\n<body><main><h1>" + title + "</h1>\n";
    page +=
        "<table><thead><tr><td></td><th>steps</th><th>tokens</th><th>NLL before</th><th>NLL after</th>"
        "<th>last loss</th><th>tokens/s</th></tr></thead><tbody>\n" +
        run_rows(runs) + "</tbody></table>\n";
    page += figure("NLL of the evaluation text", runs, &TrainingCurves::nll) +
            figure("Loss of each step", runs, &TrainingCurves::loss) +
            figure("Gradient norm before clipping", runs, &TrainingCurves::gradient_norm) +
            figure("Learning rate", runs, &TrainingCurves::learning_rate);
    return page + "</main></body></html>\n";
}

}  // namespace mha2mla
