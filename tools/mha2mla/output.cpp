#include "output.hpp"

#include <spdlog/spdlog.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "mha2mla/error.hpp"
#include "mha2mla/mapped_file.hpp"
#include "mha2mla/printable.hpp"

namespace mha2mla::tool {

std::string json_text(const nlohmann::ordered_json& json, int indent) {
    constexpr auto kReplace = nlohmann::ordered_json::error_handler_t::replace;
    std::string text = json.dump(indent, ' ', false, kReplace);
    return printable_lines(text) == text ? text : json.dump(indent, ' ', true, kReplace);
}

std::string printable_lines(std::string_view text) {
    std::string shown;
    for (std::size_t first = 0; first < text.size();) {
        const std::size_t end = std::min(text.find_first_of("\n\t", first), text.size());
        shown += printable(text.substr(first, end - first));
        if (end < text.size()) shown += text[end];
        first = end + 1;
    }
    return shown;
}

void print_json(const nlohmann::ordered_json& json) {
    check_mapped_files();
    std::printf("%s\n", json_text(json, 2).c_str());
}

void JsonOutput::put(const nlohmann::ordered_json& json) const {
    if (into == nullptr) return print_json(json);
    *into = json;
}

nlohmann::ordered_json verify_json(const VerifyResult& result) {
    return {{"nll_original", result.nll_original},
            {"nll_converted", result.nll_converted},
            {"mean_kl", result.mean_kl},
            {"max_logit_difference", result.max_logit_difference},
            {"tokens", result.tokens},
            {"windows", result.windows},
            {"context", result.context}};
}

void print_table(const std::vector<std::pair<std::string, std::string>>& rows) {
    check_mapped_files();
    std::size_t width = 0;
    for (const auto& [name, value] : rows) width = std::max(width, name.size());
    for (const auto& [name, value] : rows) {
        std::printf("%-*s  %s\n", static_cast<int>(width), printable(name).c_str(), printable(value).c_str());
    }
}

std::optional<std::size_t> terminal_columns(int descriptor) {
    winsize size{};
    if (::ioctl(descriptor, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return std::nullopt;
    return size.ws_col;
}

void print_columns(std::vector<std::vector<std::string>> rows) {
    check_mapped_files();
    for (auto& row : rows) {
        for (auto& cell : row) cell = printable(cell);
    }
    const auto& head = rows.front();
    std::vector<std::size_t> widths(head.size());
    for (const auto& row : rows) {
        for (std::size_t c = 0; c < row.size(); ++c) widths[c] = std::max(widths[c], row[c].size());
    }
    // The last column may be as long as an error message.
    std::size_t width = 0;
    for (std::size_t c = 0; c + 1 < widths.size(); ++c) width += widths[c] + 2;
    if (terminal_columns(STDOUT_FILENO).value_or(width) < width) {
        for (std::size_t i = 1; i < rows.size(); ++i) {
            std::printf("%s\n", rows[i].front().c_str());
            for (std::size_t c = 1; c < head.size(); ++c) {
                if (!rows[i][c].empty()) std::printf("  %s: %s\n", head[c].c_str(), rows[i][c].c_str());
            }
        }
        return;
    }
    for (const auto& row : rows) {
        std::string line;
        for (std::size_t c = 0; c < row.size(); ++c) {
            line += row[c] + std::string(widths[c] - row[c].size() + 2, ' ');
        }
        line.erase(line.find_last_not_of(' ') + 1);
        std::printf("%s\n", line.c_str());
    }
}

void flush_stdout() {
    if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) {
        throw Error(ErrorCode::io, "cannot write the result to standard output; was the pipe closed?");
    }
}

std::string human_count(std::int64_t count) {
    constexpr std::pair<double, char> kUnits[] = {{1e9, 'B'}, {1e6, 'M'}, {1e3, 'K'}};
    for (const auto& [size, letter] : kUnits) {
        if (static_cast<double>(count) >= size) return fixed(static_cast<double>(count) / size, 2) + letter;
    }
    return std::to_string(count);
}

std::string human_bytes(double bytes) {
    const std::string digits = fixed(bytes, bytes == std::floor(bytes) ? 0 : 1);
    const std::size_t point = std::min(digits.find('.'), digits.size());
    std::string grouped;
    for (std::size_t i = 0; i < digits.size(); ++i) {
        if (i > 0 && i < point && (point - i) % 3 == 0) grouped += ',';
        grouped += digits[i];
    }
    return grouped;
}

std::string human_reduction(double reduction) {
    char text[32];
    (void)std::snprintf(text, sizeof text, "%+.2f%%", 0.0 - 100 * reduction);  // 0, not -0
    return text;
}

std::string fixed(double value, int digits) {
    char text[64];
    (void)std::snprintf(text, sizeof text, "%.*f", digits, value);
    return text;
}

nlohmann::ordered_json number(double value) {
    if (value == std::floor(value) && std::abs(value) < 9e15) return static_cast<std::int64_t>(value);
    return value;
}

std::string range_text(std::int64_t a, std::int64_t b) {
    const auto [low, high] = std::minmax(a, b);
    return std::to_string(low) + (low == high ? "" : " to " + std::to_string(high));
}

nlohmann::ordered_json splits_json(std::span<const Split> splits) {
    nlohmann::ordered_json json = nlohmann::ordered_json::array();
    const Split* last = nullptr;  // splits that differ in their fold alone are one
    for (const Split& split : splits) {
        if (last != nullptr && last->rope_dim == split.rope_dim && last->kv_rank == split.kv_rank) continue;
        json.push_back({{"rope_dim", split.rope_dim}, {"kv_rank", split.kv_rank}});
        last = &split;
    }
    return json;
}

nlohmann::ordered_json plan_json(const Plan& plan, int kv_bits) {
    nlohmann::ordered_json json;
    json["parameters"] = {{"original", plan.parameters_original}, {"converted", plan.parameters_converted}};
    json["latent_width"] = plan.latent_width;
    json["kv_cache"] = {{"kv_bits", kv_bits},
                        {"original_bytes_per_token", number(plan.original_bytes_per_token)},
                        {"converted_bytes_per_token", number(plan.converted_bytes_per_token)},
                        {"reduction", plan.reduction()}};
    return json;
}

void log_settling(const std::optional<CalibrationStats::Settling>& settling, std::int64_t sequences) {
    if (!settling || settling->unsettled_layers > 0) return;
    spdlog::info("the 2-norm selection settled for rope-dim {} after {} sequences", settling->rope_dim, sequences);
}

}  // namespace mha2mla::tool
